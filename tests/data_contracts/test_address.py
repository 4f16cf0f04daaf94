"""Keys of a store: what a worker on another machine needs to read an artifact or write a draft."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest

from data_contracts import ArtifactError, ContractError, Draft, Store, open_artifact
from data_contracts.store.address import StoreAddress, StoreKey
from data_contracts.store.remote import RemoteStore
from tests.data_contracts import publishing


def test_an_artifact_is_opened_by_its_key(store: Store) -> None:
    artifact, _ = publishing.publish(store)
    key = pickle.loads(pickle.dumps(artifact.key))
    assert open_artifact(key).manifest == artifact.manifest
    assert store.open(artifact.artifact_type, artifact.id).key == key


def test_another_making_under_the_same_id_is_refused(store: Store, tmp_path: Path) -> None:
    artifact, _ = publishing.publish(store)
    store.set_aside(artifact.artifact_type, artifact.id)
    with pytest.raises(ArtifactError, match="has no manifest"):
        open_artifact(artifact.key)

    def more(draft: Draft) -> dict[str, int]:
        publishing.make(draft)
        return {"n": 2}

    store.publish("raw_documents", publishing.IDENTITY, {}, {}, more)
    with pytest.raises(ArtifactError, match="is another making"):
        open_artifact(artifact.key)


def test_a_draft_is_sent_as_the_address_of_the_store_and_a_key(store: Store) -> None:
    drafts = []

    def make(draft: Draft) -> dict[str, int]:
        drafts.append(draft)
        return {}

    store.publish("raw_documents", publishing.IDENTITY, {}, {}, make)
    (draft,) = drafts
    key = f"drafts/raw_documents-{publishing.IDENTITY.id}"
    assert draft.key == StoreKey(StoreAddress(str(store.root)), key)
    assert draft.folder == store.root / key
    assert pickle.loads(pickle.dumps(draft)) == draft


def test_a_draft_of_a_store_behind_a_url_lies_in_the_cache_of_each_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path / "one"))
    store = RemoteStore(f"memory://{tmp_path.name}")
    drafts = []

    def make(draft: Draft) -> dict[str, int]:
        drafts.append(draft)
        return publishing.make(draft)

    store.publish("raw_documents", publishing.IDENTITY, {}, {}, make)
    (draft,) = drafts
    assert draft.key.store == StoreAddress(f"memory://{tmp_path.name}")
    assert draft.folder.is_relative_to(tmp_path / "one")
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path / "other"))
    assert draft.folder.is_relative_to(tmp_path / "other")


def refused(store: Store, facts: object, settings: object = None) -> ContractError:
    """The error at publish for these facts and settings."""
    identity = publishing.identity("raw_documents", {})
    with pytest.raises(ContractError) as error:
        store.publish(
            "raw_documents",
            identity,
            {},
            {"given": settings},
            lambda draft: {"found": facts},
        )
    assert store.ids() == []
    assert error.value.fix == "nothing was published; correct the stage or its settings"
    return error.value


def nested(levels: int) -> object:
    value: object = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ([0] * 2_100_000, r"no reader accepts: holds up to 2,1\d\d,\d\d\d JSON values"),
        (nested(70), "no reader accepts: nested too deeply"),
        ("x" * (65 << 20), r"has 68,\d+,\d+ bytes, 68,\d+,\d+ of them facts; readers accept 67"),
    ],
    ids=["too many values", "nested too deeply", "too long"],
)
def test_a_stage_whose_facts_no_reader_accepts_fails_at_publish(
    store: Store, facts: object, why: str
) -> None:
    error = refused(store, facts)
    assert error.what == "manifest of raw_documents, made by stage test"
    assert re.search(why, error.why)


def test_settings_that_no_ref_can_hold_fail_at_publish(store: Store) -> None:
    error = refused(store, None, settings="x" * (17 << 20))
    assert error.what == "settings of stage test"
    assert "readers accept 16,777,216 bytes" in error.why
