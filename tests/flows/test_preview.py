"""What would run and why: known before any work, with every mistake in what is given."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
from typer.testing import CliRunner

import stages
from data_contracts import ArtifactError, ConfigError, ContractError, Store, frozen
from flows import preview, recipe, runs
from flows.cli import commands as cli
from flows.settings import settings_for
from stages.run import identity_of, run_stage
from tests.conftest import publisher
from tests.golden import clean as golden_clean


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """`demo` with raw_documents, clean_documents and unique_documents."""
    store = Store(tmp_path_factory.mktemp("original"))
    store.point(
        "demo",
        "raw_documents",
        golden_clean.inputs(publisher(store))["raw_documents"],
        made_by="test",
    )
    for name in ("clean", "dedup"):
        _run(store, name)
    return store


@pytest.fixture
def built(original, tmp_path):
    """A copy, to be changed."""
    return Store(shutil.copytree(original.root, tmp_path / "store"))


def _run(store: Store, name: str, settings: dict | None = None, as_of: str | None = None) -> None:
    row = stages.stage(name)
    here = {"workers": 1} if "workers" in row.config_class.model_fields else {}
    config = row.config_class.parse(here | (settings or {}), name)
    (planned_stage,) = preview.plan_stage(store, "demo", row, config, as_of=as_of)
    inputs = {
        argument: store.open(*reference) for argument, reference in planned_stage.inputs.items()
    }
    store.point(
        "demo",
        row.output,
        run_stage(store, row, config, inputs, as_of=planned_stage.identity.as_of)[0],
        made_by="test",
    )


def _dedup(store: Store, **settings: object) -> preview.PlannedStage:
    row = stages.stage("dedup")
    return preview.plan_stage(store, "demo", row, row.config_class.parse(settings, "dedup"))[0]


def test_nothing_changed_is_up_to_date(built):
    assert _dedup(built).status == "up to date"


def test_a_changed_setting_is_the_reason(built):
    planned_stage = _dedup(built, threshold=0.7)
    assert planned_stage.status == "build"
    assert planned_stage.reasons[0] == "dedup.threshold 0.8 → 0.7"


def test_how_it_runs_is_no_reason(built):
    assert _dedup(built, workers=3).status == "up to date"


def test_what_follows_is_rebuilt_because_its_input_changes(built):
    row = stages.stage("clean")
    config = preview.last_config(built, "demo", row).model_copy(update={"normal_form": "NFKC"})
    planned = preview.plan_stage(built, "demo", row, config, and_after=True)
    assert [planned_stage.stage.name for planned_stage in planned] == ["clean", "dedup"]
    assert planned[1].reasons == ("clean_documents changes (clean)",)


def test_a_result_made_before_is_reused_not_rebuilt(built):
    _run(built, "dedup", {"threshold": 0.5})
    assert _dedup(built).status == "reuse"


def test_a_removed_artifact_is_missing_and_rebuilt(built):
    ref = built.refs.get("demo", "unique_documents")
    shutil.rmtree(built.path(ref.artifact_type, ref.id))
    planned_stage = _dedup(built)
    assert planned_stage.status == "build"
    assert "missing" in planned_stage.reasons[0]


def test_two_dates_are_two_evaluations_and_no_date_keeps_the_last():
    row = stages.stage("evaluate")
    config = row.config_class.parse({}, "evaluate")
    inputs = {"checkpoint": "a", "eval_items": "b"}
    dates = ("2026-01-01", "2026-01-02", None)
    ids = {identity_of(row, config, inputs, date).id for date in dates}
    assert len(ids) == 3


def test_an_unknown_input_is_refused_by_name(built):
    row = stages.stage("dedup")
    with pytest.raises(ConfigError, match=r"stage dedup has no input.*\n.*clean_documents"):
        preview.plan_stage(
            built, "demo", row, row.config_class.parse({}, "dedup"), {"raw": "demo/raw_documents"}
        )


def test_the_name_of_an_output_leads_to_the_input_that_takes_it(store):
    row = stages.stage("dpo")
    config = row.config_class.parse({}, "dpo")
    with pytest.raises(ConfigError, match="it takes sft_checkpoint as checkpoint") as error:
        preview.plan_stage(store, None, row, config, {"sft_checkpoint": "demo/sft_checkpoint"})
    assert error.value.fix == "write checkpoint=demo/sft_checkpoint"


def test_an_input_that_is_given_twice_is_refused():
    texts = ["clean_documents=demo/clean_documents", "clean_documents=other/clean_documents"]
    message = "is given twice: demo/clean_documents and other/clean_documents"
    with pytest.raises(ConfigError, match=message):
        runs.parse_inputs(texts)


@pytest.mark.parametrize("text", ["clean_documents", "=demo/clean_documents", "clean_documents="])
def test_an_input_of_another_form_is_refused_with_an_example(text):
    with pytest.raises(ConfigError, match="is not of the form INPUT=ARTIFACT"):
        runs.parse_inputs([text])


def test_a_missing_input_is_named_with_the_command(store):
    row = stages.stage("dedup")
    with pytest.raises(ConfigError, match=r"needs clean_documents"):
        preview.plan_stage(store, None, row, row.config_class.parse({}, "dedup"))


def test_what_changed_inside_a_list_is_named_by_its_number():
    old = {"sources": [{"kind": "files", "sha256": {"a.md": "1"}}, {"kind": "web", "seeds": ["a"]}]}
    new = {
        "sources": [
            {"kind": "files", "sha256": {"a.md": "2"}},
            {"kind": "web", "seeds": ["a", "b"]},
        ]
    }
    differences = preview.setting_differences(stages.stage("crawl"), old, new)
    assert differences == [
        "crawl.sources.0.sha256.a.md 1 → 2",
        "crawl.sources.1.seeds ['a'] → ['a', 'b']",
    ]


def test_a_setting_that_is_new_or_gone_is_a_reason_even_if_it_is_unset():
    differences = preview.setting_differences(
        stages.stage("dedup"), {"old": None, "same": 1}, {"new": None, "same": 1}
    )
    assert differences == ["dedup.old unset is gone", "dedup.new unset is new"]


def test_an_input_that_is_no_longer_taken_is_a_reason(built):
    manifest = built.find("demo/unique_documents").path / "manifest.json"
    extra = '"lists": {"artifact_type": "tokenizer", "id": "000000000000000000000000"}, '
    manifest.write_text(
        manifest.read_text().replace('"clean_documents": {', extra + '"clean_documents": {')
    )
    planned_stage = _dedup(built, threshold=0.7)
    assert planned_stage.reasons == ("dedup.threshold 0.8 → 0.7", "lists is no longer an input")


def test_a_missing_artifact_is_made_again_with_the_same_settings_and_gets_the_same_id(built):
    _run(built, "dedup", {"threshold": 0.9})
    before = built.find("demo/unique_documents")
    shutil.rmtree(before.path)
    row = stages.stage("dedup")
    (planned_stage,) = preview.plan_stage(
        built, "demo", row, preview.last_config(built, "demo", row)
    )
    assert planned_stage.type_and_id == ("unique_documents", before.id)


def test_a_missing_crawl_is_made_again_with_its_date(store, tmp_path):
    (tmp_path / "page.txt").write_text("A page of text.")
    _run(
        store,
        "crawl",
        {"sources": [{"kind": "files", "paths": [f"{tmp_path}/*.txt"]}]},
        as_of="2026-01-31",
    )
    before = store.find("demo/raw_documents")
    assert before.manifest.as_of == "2026-01-31"
    shutil.rmtree(before.path)
    row = stages.stage("crawl")
    (planned_stage,) = preview.plan_stage(
        store, "demo", row, preview.last_config(store, "demo", row)
    )
    assert planned_stage.type_and_id == ("raw_documents", before.id)


def test_only_whole_runs_set_the_recipe_of_a_run(built):
    changes = ["dedup.threshold=0.9"]
    runs.build(built, recipe.load("smoke", changes), "demo", changes, None, planned=[])
    command = "stage dedup --name demo --recipe tiny --set threshold=0.6 --set workers=1"
    done = CliRunner().invoke(cli.app, command.split(), env={"GROUNDUP_STORE": str(built.root)})
    assert done.exit_code == 0
    assert built.find("demo/unique_documents").manifest.settings["threshold"] == 0.6
    followed = built.refs.recipe("demo")
    assert (followed.recipe, followed.changes) == ("smoke", ("dedup.threshold=0.9",))


def test_a_run_keeps_all_settings_as_they_were_resolved(built, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("extends: smoke\nstages: {dedup: {ngram: 7}}\n")
    resolved = recipe.load(str(path), ["dedup.threshold=0.9"])
    runs.build(built, resolved, "demo", ["dedup.threshold=0.9"], None, planned=[])
    path.write_text("extends: smoke\n")
    kept = built.refs.recipe("demo").settings
    assert kept == resolved.settings()
    assert (kept["dedup"]["ngram"], kept["dedup"]["threshold"]) == (7, 0.9)
    assert set(kept) == set(stages.NAMES)


def test_a_setting_that_the_stage_no_longer_knows_is_left_out_however_deep_it_lies(built):
    row = stages.stage("clean")
    ref = built.refs.get("demo", row.output)
    older = ref.settings | {"gone": 1, "language": ref.settings["language"] | {"gone": 1}}
    built.refs.set("demo", row.output, ref.model_copy(update={"id": "0" * 24, "settings": older}))
    assert preview.last_settings(built, "demo", row) == ref.settings


def test_a_value_that_is_no_longer_allowed_is_reported_unless_it_is_changed(built):
    row = stages.stage("dedup")
    ref = built.refs.get("demo", row.output)
    built.refs.set(
        "demo",
        row.output,
        ref.model_copy(update={"id": "0" * 24, "settings": ref.settings | {"ngram": -1}}),
    )
    with pytest.raises(ConfigError, match=r"dedup\.ngram = -1"):
        settings_for(built, row, "demo", None)
    assert settings_for(built, row, "demo", None, ["ngram=5"]).ngram == 5


def test_an_input_of_another_artifact_type_is_refused_before_any_work(built):
    row = stages.stage("dedup")
    with pytest.raises(
        ConfigError,
        match=r"stage dedup: clean_documents must be clean_documents, raw_documents/\w+ is not",
    ):
        preview.plan_stage(
            built,
            "demo",
            row,
            row.config_class.parse({}, "dedup"),
            {"clean_documents": "demo/raw_documents"},
        )


def test_a_missing_input_is_reported_before_any_work_with_the_command_that_makes_it(built):
    shutil.rmtree(built.find("demo/clean_documents").path)
    with pytest.raises(
        ArtifactError, match=r"does not exist.*\n.*groundup stage STAGE --name NAME"
    ):
        _dedup(built, threshold=0.7)


def test_an_input_under_a_contract_that_cannot_be_read_is_reported_before_any_work(built):
    manifest = built.find("demo/clean_documents").path / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"contract": "1.0.0"', '"contract": "2.0.0"'))
    with pytest.raises(ContractError, match=r"this release reads clean_documents up to 1\.x"):
        _dedup(built, threshold=0.7)
    key = built.resolve("demo/clean_documents")
    row, inputs = stages.stage("dedup"), {"clean_documents": built.open(*key, verify=False)}
    with pytest.raises(ContractError, match=r"this release reads clean_documents up to 1\.x"):
        run_stage(built, row, row.config_class.parse({"threshold": 0.7}, "dedup"), inputs)


def test_a_stage_that_reads_another_major_version_than_is_written_is_refused_before_any_work():
    row = stages.stage("dedup")
    later = replace(row, consumes=(replace(row.consumes[0], major=2),))
    with pytest.raises(
        ContractError,
        match=r"stage dedup: reads clean_documents 2\.x, and clean_documents is now at 1\.",
    ):
        identity_of(later, row.config_class.parse({}, "dedup"), {"clean_documents": "a"})


@pytest.mark.parametrize("artifact_type", ["clean_documents", "unique_documents"])
def test_a_released_contract_that_was_changed_is_refused_before_any_work(
    artifact_type, monkeypatch
):
    sound = frozen.sha256
    monkeypatch.setattr(
        frozen,
        "sha256",
        lambda path: "0" * 64 if path.parent.name == artifact_type else sound(path),
    )
    row = stages.stage("dedup")
    with pytest.raises(
        ContractError, match=rf"contract {artifact_type}/v1\.yaml: was changed after its release"
    ):
        identity_of(row, row.config_class.parse({}, "dedup"), {"clean_documents": "a"})
