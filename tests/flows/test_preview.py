from __future__ import annotations

import shutil

import pytest

import stages
from data_contracts import ConfigError, Store
from flows import preview
from flows.step import run_stage
from tests.conftest import publisher
from tests.golden import clean as golden_clean


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """`demo` with raw_documents, clean_documents and unique_documents."""
    store = Store(tmp_path_factory.mktemp("original"))
    store.point("demo", "raw_documents", golden_clean.inputs(publisher(store))["raw_documents"], run="test")
    for name in ("clean", "dedup"):
        _run(store, name)
    return store


@pytest.fixture
def built(original, tmp_path):
    """A copy, to be changed."""
    return Store(shutil.copytree(original.root, tmp_path / "store"))


def _run(store: Store, name: str, settings: dict | None = None, **followed: object) -> None:
    row = stages.stage(name)
    config = row.config_class.parse({"workers": 1} | (settings or {}), name)
    (step,) = preview.one(store, "demo", row, config)
    inputs = {argument: store.open(*reference) for argument, reference in step.inputs.items()}
    store.point("demo", row.role, run_stage(store, row, config, inputs)[0], run="test", **followed)


def _dedup(store: Store, **settings: object) -> preview.Step:
    row = stages.stage("dedup")
    return preview.one(store, "demo", row, row.config_class.parse(settings, "dedup"))[0]


def test_nothing_changed_is_up_to_date(built):
    assert _dedup(built).status == "up to date"


def test_a_changed_setting_is_the_reason(built):
    step = _dedup(built, threshold=0.7)
    assert step.status == "build"
    assert step.reasons[0] == "dedup.threshold 0.8 → 0.7"


def test_how_it_runs_is_no_reason(built):
    assert _dedup(built, workers=3).status == "up to date"


def test_what_follows_is_rebuilt_because_its_input_changes(built):
    row = stages.stage("clean")
    config = preview.last_config(built, "demo", row).model_copy(update={"normal_form": "NFKC"})
    steps = preview.one(built, "demo", row, config, and_after=True)
    assert [step.stage.name for step in steps] == ["clean", "dedup"]
    assert steps[1].reasons == ("clean_documents changes (clean)",)


def test_a_result_made_before_is_reused_not_rebuilt(built):
    _run(built, "dedup", {"threshold": 0.5})
    assert _dedup(built).status == "reuse"


def test_a_removed_artifact_is_missing_and_rebuilt(built):
    pointing = built.names.get("demo", "unique_documents")
    shutil.rmtree(built.path(pointing.noun, pointing.id))
    step = _dedup(built)
    assert step.status == "build"
    assert "missing" in step.reasons[0]


def test_two_dates_are_two_evaluations_and_no_date_keeps_the_last():
    from flows.step import identity_of

    row = stages.stage("evaluate")
    config = row.config_class.parse({}, "evaluate")
    ids = {identity_of(row, config, {"checkpoint": "a", "eval_items": "b"}, date).id for date in ("2026-01-01", "2026-01-02", None)}
    assert len(ids) == 3


def test_an_unknown_input_is_refused_by_name(built):
    row = stages.stage("dedup")
    with pytest.raises(ConfigError, match=r"stage dedup does not take it.*\n.*clean_documents"):
        preview.one(built, "demo", row, row.config_class.parse({}, "dedup"), {"raw": "demo/raw_documents"})


def test_a_missing_input_is_named_with_the_command(store):
    row = stages.stage("dedup")
    with pytest.raises(ConfigError, match=r"needs clean_documents"):
        preview.one(store, None, row, row.config_class.parse({}, "dedup"))


def test_what_changed_inside_a_list_is_told_by_its_place():
    old = {"sources": [{"kind": "files", "sha256": {"a.md": "1"}}, {"kind": "web", "seeds": ["a"]}]}
    new = {"sources": [{"kind": "files", "sha256": {"a.md": "2"}}, {"kind": "web", "seeds": ["a", "b"]}]}
    told = preview.setting_differences("crawl", old, new)
    assert told == ["crawl.sources.0.sha256.a.md 1 → 2", "crawl.sources.1.seeds ['a'] → ['a', 'b']"]


def test_the_recipe_of_a_name_outlives_single_stages_that_had_none(built):
    _run(built, "dedup", {"threshold": 0.9}, recipe="smoke", changes=["dedup.threshold=0.9"])
    _run(built, "dedup")
    assert preview.last_recipe(built, "demo") == ("smoke", ["dedup.threshold=0.9"])


def test_settings_of_an_artifact_that_is_gone_are_those_of_its_recipe(built):
    _run(built, "dedup", {"seed": 6, "threshold": 0.9}, recipe="tiny", changes=["dedup.threshold=0.9"])
    shutil.rmtree(built.find("demo/unique_documents").path)
    config = preview.last_config(built, "demo", stages.stage("dedup"))
    assert (config.seed, config.threshold) == (6, 0.9)
