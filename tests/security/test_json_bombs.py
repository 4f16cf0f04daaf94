"""A short JSON text that would become gigabytes in memory is refused before it is parsed."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from data_contracts import ArtifactError, Store
from data_contracts.json_files import MAX_BYTES, MAX_VALUES, read_json
from data_contracts.store import manifest
from data_contracts.tensor_files import safetensors_header
from tests.security import stores
from tests.security.stores import CLEAN, RAW, Entries, manifest_key, ref_key

TOO_MANY = "JSON values, and at most"
MAX_PEAK_MB = 500

# getrusage is of no use here: a process inherits the peak of the one that started it.
PEAK = """
import sys
from pathlib import Path
from {module} import {reader}
def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
before = peak()
try:
    {call}
except ValueError as error:
    print(error, file=sys.stderr)
print((peak() - before) / 1024)
"""


def empty_objects(count: int) -> bytes:
    return b"[" + b",".join([b"{}"] * count) + b"]"


def entries(count: int) -> bytes:
    """One object of many entries: of all JSON of one length, it takes the most memory."""
    return b"{" + b",".join(b'"key-%d":"value-%d"' % (n, n) for n in range(count)) + b"}"


def peak_of(module: str, reader: str, call: str) -> tuple[float, str]:
    """Peak memory in MB that a call in a new process adds to it, and what it reports."""
    code = PEAK.format(module=module, reader=reader, call=call)
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    return float(ended.stdout), ended.stderr


def test_a_json_file_of_too_many_values_is_one_error(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(b'{"a":' + empty_objects(MAX_VALUES) + b"}")
    with pytest.raises(ValueError, match=f"tokenizer.json: holds up to .* {TOO_MANY} 2,600,000"):
        read_json(path)


def test_a_safetensors_header_of_too_many_values_is_one_problem(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    header = b'{"__metadata__":' + empty_objects(MAX_VALUES) + b"}"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    shapes, problem = safetensors_header(path)
    assert shapes == {}
    assert problem
    assert TOO_MANY in problem


@pytest.mark.parametrize("of", ["manifest", "ref"])
def test_an_entry_of_a_store_of_too_many_values_is_one_error(store: Store, of: str) -> None:
    stores.fill(store)
    clean = store.find(f"demo/{CLEAN}")
    key, field = (
        (manifest_key(clean), "facts") if of == "manifest" else (ref_key(CLEAN), "settings")
    )
    written = json.loads(Entries(store).read(key))
    assert isinstance(written[field], dict)
    written[field] = {"bomb": "BOMB"}
    bomb = empty_objects(manifest.MAX_VALUES // 2 + 1)
    Entries(store).write(key, json.dumps(written).encode().replace(b'"BOMB"', bomb))
    with pytest.raises(ArtifactError, match=f"{TOO_MANY} 2,000,000"):
        store.find(f"demo/{CLEAN}")


@pytest.mark.slow
def test_a_tokenizer_of_half_a_million_tokens_is_read(tmp_path: Path) -> None:
    size = 500_000
    path = tmp_path / "tokenizer.json"
    vocabulary = {f"token-{number}": number for number in range(size)}
    merges = [[f"to{number}", f"ken{number}"] for number in range(size)]
    path.write_text(json.dumps({"model": {"vocab": vocabulary, "merges": merges}}))
    assert len(read_json(path)["model"]["merges"]) == size


WORST: dict[str, Callable[[], bytes]] = {
    "90 MB of empty objects": lambda: b'{"a":' + empty_objects(30_000_000) + b"}",
    "as many entries as are allowed": lambda: entries(MAX_VALUES // 2 - 1),
    "as many empty objects as are allowed": lambda: (
        b'{"a":' + empty_objects(MAX_VALUES // 2) + b"}"
    ),
    "one long string": lambda: b'{"a":"' + b"x" * (MAX_BYTES - 8) + b'"}',
}


@pytest.mark.slow
@pytest.mark.parametrize("what", WORST)
def test_no_json_file_takes_more_memory_than_the_bound(tmp_path: Path, what: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(WORST[what]())
    peak, _ = peak_of("data_contracts.json_files", "read_json", f"read_json(Path({str(path)!r}))")
    assert peak < MAX_PEAK_MB


@pytest.mark.slow
@pytest.mark.parametrize("what", ["21 million empty objects", "as many as are allowed"])
def test_no_manifest_takes_more_memory_than_the_bound(
    store: Store, tmp_path: Path, what: str
) -> None:
    stores.fill(store)
    raw = store.find(f"demo/{RAW}")
    written = json.loads((raw.path / "manifest.json").read_bytes())
    written["facts"] = "FACTS"
    facts = (
        entries(manifest.MAX_VALUES // 2 - 100)
        if what.startswith("as")
        else b'{"a":' + empty_objects(21_000_000) + b"}"
    )
    path = tmp_path / "manifest.json"
    path.write_bytes(json.dumps(written).encode().replace(b'"FACTS"', facts))
    call = f"Manifest.parse(Path({str(path)!r}).read_bytes())"
    peak, _ = peak_of("data_contracts.store.manifest", "Manifest", call)
    assert peak < MAX_PEAK_MB


NOT_AN_ENTRY = {
    "a list": ([1, 2], "tensor 't' is an array, not an object"),
    "a number": (1, "tensor 't' is a number, not an object"),
    "nothing": (None, "tensor 't' is null, not an object"),
    "an empty object": ({}, "tensor 't' has no dtype"),
    "a shape that is a text": (
        {"dtype": "F32", "shape": "2", "data_offsets": [0, 8]},
        "shape of tensor 't' is a string, not an array",
    ),
    "three offsets": (
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 8, 9]},
        "data_offsets of tensor 't' has 3 numbers, not 2",
    ),
    "a dtype that is a list": (
        {"dtype": ["F32"], "shape": [2], "data_offsets": [0, 8]},
        "dtype ['F32'] is not known",
    ),
}


@pytest.mark.parametrize("what", NOT_AN_ENTRY)
def test_a_tensor_that_is_described_wrongly_is_named_in_plain_words(
    tmp_path: Path, what: str
) -> None:
    value, message = NOT_AN_ENTRY[what]
    header = json.dumps({"t": value}).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 8)
    _, problem = safetensors_header(path)
    assert problem
    assert message in problem
    assert "Error" not in problem


def test_a_header_that_is_a_list_is_named_in_plain_words(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", 2) + b"[]")
    assert safetensors_header(path) == (
        {},
        "the header cannot be read: it is an array, not an object",
    )


@pytest.mark.parametrize(
    "why", ["\n\nDeserializing page header failed.\n", "it ends \n \n\t\nhere", "a\r\n\r\nb"]
)
def test_no_error_has_an_empty_line(why: str) -> None:
    message = str(ArtifactError("artifact x", f"cannot be read: {why}", "run it again\n"))
    lines = message.split("\n")
    assert all(line.strip() for line in lines)
    assert lines[-1] == "  To repair: run it again"
