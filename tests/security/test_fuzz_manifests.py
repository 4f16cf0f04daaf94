"""Whatever bytes a manifest, a ref or a contract has: it is read, or it is one error of ours. No traceback, no hang."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_contracts import Artifact, ContractError, GroundupError, Store
from data_contracts.contract import SHIPPED, load
from data_contracts.verification import Held, verify
from tests.security import stores
from tests.security.stores import CLEAN, RAW

EXAMPLES = 200
BUDGET = float(os.environ.get("GROUNDUP_FUZZ_SECONDS", "600"))
AT_A_TIME = 500  # examples between two looks at the clock

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=30), st.sampled_from(["../../x", "0" * 24, "\ud800", "1.0.0"])
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4))
TOKENS = [b"{", b"}", b"[" * 2000, b'"', b"\x00", b"\xff", b"1e999", b"NaN", b"-", b"9" * 5000, b"\\ud800", b"../", b"\n", b"null", b","]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("fuzz") / "store")
    stores.fill(store)
    return store


@st.composite
def mangled(draw: st.DrawFn, written: bytes) -> bytes:
    """The bytes with pieces overwritten, cut out and put in."""
    data = written
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        length = draw(st.integers(0, 40))
        piece = draw(st.one_of(st.binary(max_size=20), st.sampled_from(TOKENS)))
        data = data[:at] + piece + data[at + length :]
    return data


@st.composite
def edited(draw: st.DrawFn, written: bytes) -> bytes:
    """The JSON with the value somewhere in it replaced by any other."""
    document: Any = json.loads(written)
    part = document
    while True:
        keys = list(part) if isinstance(part, dict) else list(range(len(part)))
        key = draw(st.sampled_from(keys))
        inner = part[key]
        if isinstance(inner, dict | list) and inner and draw(st.booleans()):
            part = inner
            continue
        part[key] = draw(VALUES)
        return json.dumps(document).encode("utf-8", "surrogatepass")


def many(strategy: st.SearchStrategy[Any], attempt: Callable[[Any], None], examples: int = EXAMPLES) -> None:
    """Have `attempt` meet that many examples."""

    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(strategy)
    def meet(example: Any) -> None:
        attempt(example)

    meet()


def as_long_as_the_budget(strategy: st.SearchStrategy[Any], attempt: Callable[[Any], None]) -> None:
    end = time.monotonic() + BUDGET
    while time.monotonic() < end:
        many(strategy, attempt, AT_A_TIME)


def ours(call: Callable[[], Any]) -> str:
    """What is said by an error of ours, safe for a terminal; nothing if all is well. Any other error is one of the test."""
    try:
        call()
    except GroundupError as error:
        told = str(error)
    else:
        return ""
    assert "\x1b" not in told
    return told


def on_manifest(store: Store) -> tuple[st.SearchStrategy[bytes], Callable[[bytes], None]]:
    clean = store.find(f"demo/{CLEAN}")
    path = clean.path / "manifest.json"
    written = path.read_bytes()

    def attempt(data: bytes) -> None:
        path.write_bytes(data)
        refused = ours(lambda: verify(store.open(CLEAN, clean.id, verify=False), Held.by(store)))
        path.write_bytes(written)
        assert refused or data == written

    return st.one_of(mangled(written), edited(written), st.binary(max_size=200)), attempt


def on_ref(store: Store) -> tuple[st.SearchStrategy[bytes], Callable[[bytes], None]]:
    path = store.root / stores.ref_key(RAW)
    written = path.read_bytes()
    found: list[Artifact] = []

    def attempt(data: bytes) -> None:
        path.write_bytes(data)
        refused = ours(lambda: found.append(store.find(f"demo/{RAW}", verify=True)))
        path.write_bytes(written)
        assert refused or found.pop().path.is_relative_to(store.root / "objects")

    return st.one_of(mangled(written), edited(written), st.binary(max_size=200)), attempt


def on_contract(folder: Path) -> tuple[st.SearchStrategy[bytes], Callable[[bytes], None]]:
    path = folder / "v1.yaml"
    texts = [SHIPPED.current(name).path.read_bytes() for name in (RAW, "checkpoint", "conversations")]

    def attempt(data: bytes) -> None:
        path.write_bytes(data)
        try:
            contract = load(path)
            for table in contract.tables:
                contract.arrow_schema(table)
        except ContractError:
            pass

    choices = [mangled(text) for text in texts]
    return st.one_of(*choices, st.binary(max_size=200), st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace"))), attempt


@pytest.mark.slow
def test_no_bytes_of_a_manifest_are_taken_for_sound_or_raise_anything_else(filled: Store) -> None:
    many(*on_manifest(filled))


@pytest.mark.slow
def test_no_bytes_of_a_ref_lead_out_of_the_store_or_raise_anything_else(filled: Store) -> None:
    many(*on_ref(filled))


@pytest.mark.slow
def test_no_bytes_of_a_contract_raise_anything_else(tmp_path: Path) -> None:
    many(*on_contract(tmp_path))


@pytest.mark.long
@pytest.mark.timeout(0)
@pytest.mark.parametrize("of", [on_manifest, on_ref])
def test_no_bytes_of_the_store_raise_anything_else_for_as_long_as_we_look(filled: Store, of: Callable[..., Any]) -> None:
    as_long_as_the_budget(*of(filled))


@pytest.mark.long
@pytest.mark.timeout(0)
def test_no_bytes_of_a_contract_raise_anything_else_for_as_long_as_we_look(tmp_path: Path) -> None:
    as_long_as_the_budget(*on_contract(tmp_path))


BOMB = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(b"%c: &%c [%s]\n" % (n, n, b",".join([b"*%c" % (n - 1)] * 9)) for n in range(98, 110))


@pytest.mark.parametrize("data", [b"[" * 100_000, BOMB, b"{}", b"", b"a: " * 5000, b"x" * (2 << 20), b"!!python/object:os.system {}"])
def test_a_contract_that_is_a_trap_is_refused_at_once(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "v1.yaml"
    path.write_bytes(data)
    with pytest.raises(ContractError):
        load(path)
