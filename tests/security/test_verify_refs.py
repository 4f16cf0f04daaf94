"""`groundup verify` compares what a ref says of its artifact with the artifact's manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from data_contracts import ArtifactError, Store
from data_contracts.store import removal
from data_contracts.store.index import StoreIndex
from data_contracts.store.verification import Verified, seal, verify, verify_run
from tests.security import stores
from tests.security.stores import CLEAN, RAW, Entries, ref_key


@pytest.fixture(params=["folder", "bucket"])
def filled(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    store = Store(tmp_path / "store") if request.param == "folder" else stores.in_bucket(tmp_path)
    stores.fill(store)
    return store


def verified(store: Store, reference: str) -> Verified:
    return verify(store.open(*store.resolve(reference), verify=False), StoreIndex.read(store))


EDITED: dict[str, dict[str, Any]] = {
    "stage": {"stage": "another"},
    "settings": {"settings": {"least": 3, "workers": 3}},
    "a setting more": {"settings": {"least": 3, "workers": 2, "more": None}},
    "no settings": {"settings": {}},
    "as_of": {"as_of": "2026-01-31"},
}


@pytest.mark.parametrize("is_sealed", [True, False])
@pytest.mark.parametrize("what", EDITED)
def test_a_ref_that_says_something_else_than_the_manifest_is_found(
    filled: Store, what: str, is_sealed: bool
) -> None:
    assert verified(filled, f"demo/{CLEAN}").seal == "sealed"
    digest = {} if is_sealed else {"manifest_sha256": None}
    Entries(filled).change_json(ref_key(CLEAN), lambda ref: ref.update(EDITED[what] | digest))
    (field,) = EDITED[what]
    with pytest.raises(ArtifactError, match=f"its {field} .* not what the manifest says") as error:
        verified(filled, f"demo/{CLEAN}")
    assert error.value.what == f"ref demo/{CLEAN}"
    assert error.value.fix.endswith(f": groundup seal demo/{CLEAN}")
    assert seal(filled, "demo", CLEAN, StoreIndex.read(filled))
    assert verified(filled, f"demo/{CLEAN}").seal == "sealed"
    ref = filled.refs.get("demo", CLEAN)
    assert ref is not None
    assert (ref.stage, ref.settings["workers"], ref.as_of) == ("test", 2, None)


@pytest.mark.parametrize("field", ["stage", "settings", "as_of", "run", "at"])
def test_a_ref_without_one_of_its_fields_cannot_be_read(filled: Store, field: str) -> None:
    Entries(filled).change_json(ref_key(CLEAN), lambda ref: ref.pop(field))
    with pytest.raises(ArtifactError, match=f"its entry 1 cannot be read: {field}: Field required"):
        verified(filled, f"demo/{CLEAN}")


def test_a_run_is_verified_whole_though_one_ref_was_edited(filled: Store) -> None:
    Entries(filled).change_json(ref_key(CLEAN), lambda ref: ref.update(stage="another"))
    found = dict(verify_run(filled, "demo"))
    assert isinstance(found[f"demo/{CLEAN}"], ArtifactError)
    assert isinstance(found[f"demo/{RAW}"], Verified)


@pytest.mark.parametrize("change", ["removed", "null"])
def test_a_ref_that_lost_its_digest_is_unsealed_whatever_else_holds_it(
    filled: Store, change: str
) -> None:
    filled.point("other", RAW, filled.find(f"demo/{RAW}"), "test", made=False)

    def forget(ref: dict[str, Any]) -> None:
        del ref["manifest_sha256"]
        if change == "null":
            ref["manifest_sha256"] = None

    Entries(filled).change_json(ref_key(RAW), forget)
    found = verified(filled, f"demo/{RAW}")
    assert found.seal == "unsealed"
    assert f"groundup seal demo/{RAW}" in found.notes[0]
    assert seal(filled, "demo", RAW, StoreIndex.read(filled))
    assert verified(filled, f"demo/{RAW}").seal == "sealed"


def test_a_later_entry_without_digest_is_unsealed(filled: Store) -> None:
    ref = filled.refs.get("demo", RAW)
    assert ref is not None
    filled.refs.set("demo", RAW, ref.model_copy(update={"manifest_sha256": None}))
    assert verified(filled, f"demo/{RAW}").seal == "unsealed"


def test_a_ref_of_an_earlier_making_may_have_had_other_settings(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    stores.fill(store)
    removal.remove(store, removal.plan(store, f"demo/{CLEAN}"))
    ref = store.refs.get("demo", CLEAN)
    assert ref is not None
    assert ref.removed
    earlier = ref.model_copy(update={"settings": {"least": 3, "workers": 9}})
    store.refs.set("demo", CLEAN, earlier.model_copy(update={"manifest_sha256": "0" * 64}))
    again = stores.publish_clean(store, store.find(f"demo/{RAW}"))
    store.point("other", CLEAN, again, "test")
    assert verified(store, f"other/{CLEAN}").seal == "sealed"
