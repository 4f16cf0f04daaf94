"""Model files of any bytes are read or give one named error.

No traceback is shown, nothing hangs, and memory stays bounded.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import strategies as st

from data_contracts import Store
from data_contracts.tensor_files import gguf_header, gguf_problem, safetensors_header
from stages import tokenizer_files
from stages.chat_templates import ChatTemplate, Limits
from stages.evaluate import task_files
from stages.export_gguf.architecture import read_config
from stages.export_gguf.vocabulary import Vocabulary, read_vocabulary
from stages.llama_cpp.chat import affordable_context
from stages.lm.chat import ChatFormat
from stages.lm.checkpoint import load_config, load_model, stop_ids
from stages.lm.tokenizer import ModelTokenizer
from tests.checkpoints import CHAT_TEMPLATE, tiny_checkpoint
from tests.conftest import publisher
from tests.security.fuzzing import (
    Attempt,
    Target,
    as_long_as_the_budget,
    edited,
    mangled,
    many,
    refusal,
)
from tests.security.gguf_files import gguf_file, setting, tensor, text

TIGHT = Limits(seconds=1, bytes=256 << 20, characters=10_000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A valid checkpoint whose files may be overwritten."""
    root = tmp_path_factory.mktemp("models")
    made = tiny_checkpoint(publisher(Store(root / "store")), vocab_size=500)
    target = root / "checkpoint"
    target.mkdir()
    for file in made.manifest.files:
        if "/" not in file.path:
            (target / file.path).write_bytes((made.path / file.path).read_bytes())
    return target


def on_file(folder: Path, name: str, *reads: Callable[[Path], Any]) -> Attempt:
    """Overwrite a file with the bytes, read it, and restore it."""
    path = folder / name
    sound = path.read_bytes()

    def attempt(data: bytes) -> None:
        path.write_bytes(data)
        try:
            for read in reads:
                refusal(partial(read, folder))
        finally:
            path.write_bytes(sound)

    return attempt


def special_ids_of(folder: Path) -> dict[str, int | None]:
    return ModelTokenizer(folder).special_ids


def vocabulary_of(folder: Path) -> Vocabulary:
    return read_vocabulary(ModelTokenizer(folder))


def chat_format_of(folder: Path) -> ChatFormat:
    return ChatFormat(ModelTokenizer(folder))


def on_config(folder: Path) -> Target:
    written = (folder / "config.json").read_bytes()
    attempt = on_file(folder, "config.json", load_config, read_config, load_model)
    return mangled(written) | edited(json.loads(written)) | st.binary(max_size=200), attempt


def on_generation_config(folder: Path) -> Target:
    written = (folder / "generation_config.json").read_bytes()
    return mangled(written) | edited(json.loads(written)), on_file(
        folder, "generation_config.json", stop_ids
    )


def on_tokenizer_config(folder: Path) -> Target:
    written = (folder / "tokenizer_config.json").read_bytes()
    return mangled(written) | edited(json.loads(written)), on_file(
        folder, "tokenizer_config.json", special_ids_of
    )


def on_tokenizer(folder: Path) -> Target:
    written = (folder / "tokenizer.json").read_bytes()
    document = json.loads(written)

    def use(folder: Path) -> None:
        words = tokenizer_files.load(folder / "tokenizer.json", "tokenizer")
        words.decode(words.encode("A text: 日本 <|im_end|>\n\n", add_special_tokens=False).ids)

    parts = {key: value for key, value in document.items() if key != "model"}
    whole = edited(parts).map(
        lambda data: json.dumps(json.loads(data) | {"model": document["model"]}).encode()
    )
    return mangled(written) | whole | edited(document), on_file(
        folder, "tokenizer.json", use, vocabulary_of
    )


def on_safetensors(folder: Path) -> Target:
    written = (folder / "model.safetensors").read_bytes()
    length = struct.unpack("<Q", written[:8])[0]
    head, data = json.loads(written[8 : 8 + length]), written[8 + length :]
    rewritten = edited(head).map(lambda changed: struct.pack("<Q", len(changed)) + changed + data)

    def header(folder: Path) -> None:
        safetensors_header(folder / "model.safetensors")

    attempt = on_file(folder, "model.safetensors", header, load_model)
    return mangled(written, 8 + length) | rewritten | st.binary(max_size=200), attempt


def on_template(folder: Path) -> Target:
    pieces = [
        "{{",
        "}}",
        "{%",
        "%}",
        "for x in messages",
        "endfor",
        "if x",
        "endif",
        "messages",
        "[0]",
        ".content",
        "|",
        "~",
        "'a'",
    ]
    pieces += [
        "generation",
        "endgeneration",
        "macro f()",
        "endmacro",
        "f()",
        "range(9)",
        "*",
        "**",
        "9",
        "\x1b[2J",
        "set x = ",
        " ",
    ]
    made = st.lists(st.sampled_from(pieces), max_size=25).map(
        lambda found: " ".join(found).encode()
    )

    def render(folder: Path) -> None:
        source = (folder / "chat_template.jinja").read_text("utf-8", "replace")
        chat = [{"role": "user", "content": "Hi?"}]
        ChatTemplate(source, "chat template", limits=TIGHT).render([chat], marks=True)

    attempt = on_file(folder, "chat_template.jinja", render, chat_format_of)
    return mangled(CHAT_TEMPLATE.encode()) | made | st.binary(max_size=100), attempt


def on_gguf(folder: Path) -> Target:
    path = folder.parent / "x.gguf"
    sizes = [
        setting(f"llama.{key}".encode(), 4, struct.pack("<I", 4))
        for key in ("context_length", "block_count")
    ]
    names = setting(b"tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, 2) + text(b"a") + text(b"b"))
    known = [setting(b"general.architecture", 8, text(b"llama")), *sizes, names]
    written = gguf_file(*known, tensors=tensor(b"t", [4]), data=b"\0" * 64)
    assert gguf_problem_of(path, written) is None

    def attempt(data: bytes) -> None:
        path.write_bytes(data)
        header = gguf_header(path)
        assert header.problem is None or len(header.problem) < 5000
        refusal(lambda: affordable_context(path, header, 1 << 30))

    return mangled(written) | st.binary(max_size=200).map(
        lambda data: b"GGUF\3\0\0\0" + data
    ), attempt


def gguf_problem_of(path: Path, data: bytes) -> str | None:
    path.write_bytes(data)
    return gguf_problem(path)


def on_task_file(folder: Path) -> Target:
    path = folder.parent / "task.yaml"
    task = {
        "task": "x",
        "doc_to_text": "{{ question | trim }}",
        "metric_list": [{"metric": "acc"}],
        "include": [],
    }
    written = yaml.safe_dump(task).encode()

    def attempt(data: bytes) -> None:
        path.write_bytes(data)
        refusal(lambda: task_files.check(path))

    return mangled(written) | edited(task) | st.binary(max_size=200), attempt


TARGETS = [
    on_config,
    on_generation_config,
    on_tokenizer_config,
    on_tokenizer,
    on_safetensors,
    on_template,
    on_gguf,
    on_task_file,
]


@pytest.mark.slow
@pytest.mark.parametrize("of", TARGETS)
def test_no_bytes_of_a_models_files_raise_anything_else(
    folder: Path, of: Callable[[Path], Target]
) -> None:
    many(*of(folder))


@pytest.mark.long
@pytest.mark.timeout(0)
@pytest.mark.parametrize("of", TARGETS)
def test_no_bytes_of_a_models_files_raise_anything_else_for_as_long_as_we_look(
    folder: Path, of: Callable[[Path], Target]
) -> None:
    as_long_as_the_budget(*of(folder))
