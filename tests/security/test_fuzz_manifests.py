"""Manifests, refs and contracts of any bytes are read or give one error: no traceback, no hang."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import strategies as st

from data_contracts import Artifact, ContractError, Store
from data_contracts.contract import SHIPPED, load
from data_contracts.store.index import StoreIndex
from data_contracts.store.verification import verify
from tests.security import stores
from tests.security.fuzzing import Target, as_long_as_the_budget, edited, mangled, many, refusal
from tests.security.stores import CLEAN, RAW


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("fuzz") / "store")
    stores.fill(store)
    return store


def on_manifest(store: Store) -> Target:
    clean = store.find(f"demo/{CLEAN}")
    path = clean.path / "manifest.json"
    written = path.read_bytes()

    def attempt(data: bytes) -> None:
        path.write_bytes(data)
        refused = refusal(
            lambda: verify(store.open(CLEAN, clean.id, verify=False), StoreIndex.read(store))
        )
        path.write_bytes(written)
        assert refused or data == written

    return st.one_of(
        mangled(written), edited(json.loads(written)), st.binary(max_size=200)
    ), attempt


def on_ref(store: Store) -> Target:
    path = store.root / stores.ref_key(RAW)
    written = path.read_bytes()
    found: list[Artifact] = []

    def attempt(data: bytes) -> None:
        path.write_bytes(data)
        refused = refusal(lambda: found.append(store.find(f"demo/{RAW}", verify=True)))
        path.write_bytes(written)
        assert refused or found.pop().path.is_relative_to(store.root / "objects")

    return st.one_of(
        mangled(written), edited(json.loads(written)), st.binary(max_size=200)
    ), attempt


def on_contract(folder: Path) -> Target:
    path = folder / "v1.yaml"
    texts = [
        SHIPPED.current(name).path.read_bytes() for name in (RAW, "checkpoint", "conversations")
    ]

    def attempt(data: bytes) -> None:
        path.write_bytes(data)
        try:
            contract = load(path)
            for table in contract.tables:
                contract.arrow_schema(table)
        except ContractError:
            pass

    choices = [mangled(text) for text in texts]
    return st.one_of(
        *choices,
        st.binary(max_size=200),
        st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace")),
    ), attempt


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
def test_no_bytes_of_the_store_raise_anything_else_for_as_long_as_we_look(
    filled: Store, of: Callable[[Store], Target]
) -> None:
    as_long_as_the_budget(*of(filled))


@pytest.mark.long
@pytest.mark.timeout(0)
def test_no_bytes_of_a_contract_raise_anything_else_for_as_long_as_we_look(tmp_path: Path) -> None:
    as_long_as_the_budget(*on_contract(tmp_path))


BOMB = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (n, n, b",".join([b"*%c" % (n - 1)] * 9)) for n in range(98, 110)
)


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 100_000,
        BOMB,
        b"{}",
        b"",
        b"a: " * 5000,
        b"x" * (2 << 20),
        b"!!python/object:os.system {}",
    ],
)
def test_a_contract_that_is_a_trap_is_refused_at_once(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "v1.yaml"
    path.write_bytes(data)
    with pytest.raises(ContractError):
        load(path)
