from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
import yaml

import stages
from data_contracts import Artifact, ConfigError, Manifest
from data_contracts.store.artifact import InputRef
from stages.describe.config import UNKNOWN, DescribeConfig
from stages.describe.data_card import data_card
from stages.describe.model_card import model_card
from stages.reporting import pictures
from stages.reporting.funnel import funnel
from stages.reporting.lineage import lineage, mermaid
from stages.reporting.markdown import number, quotation, settings, table
from tests.golden import describe as golden

NUMBER = re.compile(r"(?<![\w.,-])\d[\d,]*(?:\.\d+)?(?:e[-+]\d+)?(?![\w])")


@pytest.fixture
def given(publish):
    return golden.inputs(publish)


@pytest.fixture
def release(run, given):
    return run("describe", {"name": "Test model"}, **given)


def text(release, name):
    return (release.path / name).read_text("utf-8")


@pytest.mark.slow
def test_the_release_holds_cards_lineage_and_pictures(release):
    names = {"README.md", "DATA.md", "lineage.json", "lineage.mmd", "funnel.svg", "loss.svg"}
    assert {entry.path for entry in release.manifest.files} == names
    assert set(release.manifest.inputs) == {
        wanted.name for wanted in stages.stage("describe").consumes
    }
    assert release.manifest.facts["figures"]["artifacts"] == len(release.manifest.inputs)


@pytest.mark.slow
def test_the_front_matter_is_yaml_with_what_is_known_and_says_what_is_not(release, run, given):
    front = yaml.safe_load(text(release, "README.md").split("---")[1])
    assert front["language"] == ["en"]
    assert front["license"] == UNKNOWN
    assert front["pipeline_tag"] == "text-generation"
    assert "gguf" in front["tags"]
    named = run("describe", {"license": "apache-2.0"}, **given)
    assert yaml.safe_load(text(named, "README.md").split("---")[1])["license"] == "apache-2.0"


@pytest.mark.slow
def test_no_card_holds_a_number_that_is_not_in_the_inputs(release, given):
    known = set()
    for artifact in given.values():
        for value in _numbers(artifact.manifest.model_dump(exclude={"started", "finished"})):
            known |= {number(value), number(float(value)), str(value)}
        for name in artifact.contract.tables:
            for value in _numbers(artifact.read(name).to_pylist()):
                known |= {number(value), str(value)}
    checkpoint = given["dpo_checkpoint"]
    known |= {
        number(value) for value in _numbers(json.loads(checkpoint.file("config").read_text()))
    }
    # Counts over rows, calculated by hand from the golden tables.
    by_hand = {
        "weights": 500 * 64 + 2 * (64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 96 + 2 * 64) + 64,
        "pages of web": 5,
        "pages of files": 3,
        "bytes of web": sum(range(100, 105)),
        "bytes of files": sum(range(105, 108)),
        "redactions": sum(range(6)),
        "text": 23,
        "items of heldout_description": 5,
        "conversations": 7,
        "pairs": 5,
        "conversations refused": 1,
        "pairs refused": 3,
    }
    known |= {number(value) for value in by_hand.values()}
    for name in ("README.md", "DATA.md"):
        prose = text(release, name)
        prose = re.sub(r"\b[0-9a-f]{24,}\b", "", prose)
        assert set(NUMBER.findall(prose)) - known == set(), name
        assert NUMBER.findall(prose)


@pytest.mark.slow
def test_the_data_card_tells_sources_robots_licences_and_what_was_taken_out(release):
    card = text(release, "DATA.md")
    for line in (
        "| web | 5 | 510 | 1 | 1 |",
        "| files | 3 | 318 | 0 | 0 |",
        "| allowed | 5 |",
        "| not_applicable | 3 |",
        "| noarchive | 1 |",
        "| timeout | 1 |",
        "| clean | 6 documents | 2 |",
        "| dedup | 2 train + 1 heldout | 3 |",
        "| near | 3 |",
        "| CC0 | 1 |",
        "| evaluation items | 5 |",
        "| pages for bits per byte | 2 |",
        "| items of heldout_description | 5 |",
        "| kind | conversations |\n|---|---|\n| user | 7 |",
        "| kind | pairs |\n|---|---|\n| user | 5 |",
        "Refused:\n\n| reason | rows |\n|---|---|\n| empty | 1 |",
        "Refused:\n\n| reason | rows |\n|---|---|\n| empty | 3 |",
    ):
        assert line in card
    assert "placeholders in the documents kept: 15." in card
    assert "share text with an evaluation item: 1. Evaluation items that were hit: 1." in card
    assert card.count(UNKNOWN) >= 4


@pytest.mark.slow
def test_the_model_card_shows_scores_beside_baselines_and_a_dash_for_what_is_missing(release):
    card = text(release, "README.md")
    assert "| heldout_description | acc | 0.4062 | 0.0217 | 512 | 0.25 | chance |" in card
    assert "| arc_easy | acc | – | – | 0 | – | – |" in card
    assert "| Q8_0 | m-Q8_0.gguf | 123,456 | 0.00037 |" in card
    for training in ("Pretraining", "Instruction tuning", "Preference optimization"):
        assert f"| {training} | 4 | 4,000 | 6.25 | 2.25 | 2.5 | – |" in card
    assert "| Architecture | llama |" in card
    assert "| Context, tokens | 256 |" in card, "the model is the last checkpoint"
    assert yaml.safe_load(card.split("---")[1])["tags"] == ["groundup", "gguf", "conversational"]


@pytest.mark.slow
def test_equal_inputs_give_equal_bytes(release, run, given, tmp_path):
    again = {
        name: text(release, name)
        for name in (
            "README.md",
            "DATA.md",
            "lineage.json",
            "lineage.mmd",
            "funnel.svg",
            "loss.svg",
        )
    }
    manifests = {
        output: artifact.manifest.model_copy(update={"started": "x", "finished": "y"})
        for output, artifact in given.items()
    }
    assert (
        json.dumps(lineage(manifests), indent=1, ensure_ascii=False) + "\n" == again["lineage.json"]
    )
    assert pictures.funnel_svg(manifests.values()) == again["funnel.svg"]
    assert not re.search(r"20\d\d-\d\d-\d\d", "".join(again.values()))


@pytest.mark.slow
def test_every_input_may_be_absent_but_not_all(run, given):
    for output, artifact in given.items():
        alone = run("describe", **{output: artifact})
        assert UNKNOWN in text(alone, "README.md")
        assert text(alone, "loss.svg").startswith("<?xml")
    with pytest.raises(ConfigError, match="nothing to describe"):
        run("describe")


def test_lineage_names_what_is_not_given():
    made = _manifest(
        "b" * 24,
        "checkpoint",
        "pretrain",
        {"tokenizer": InputRef(artifact_type="tokenizer", id="a" * 24)},
    )
    assert lineage({"base_checkpoint": made})["not_given"] == [
        {"artifact_type": "tokenizer", "id": "a" * 24}
    ]
    graph = mermaid([made])
    assert f"  {'a' * 24} --> {'b' * 24}" in graph.splitlines()
    assert f'{"a" * 24}["tokenizer aaaaaaaa"]:::absent' in graph


def test_reasons_that_do_not_add_up_to_the_rejects_are_not_shown():
    manifest = _manifest("b" * 24, "clean_documents", "clean", {})
    rows = {"documents": 5, "rejects": 4}
    true = manifest.model_copy(
        update={"rows": rows, "facts": {"rejected": {"short": 1, "language": 3}}}
    )
    wrong = manifest.model_copy(update={"rows": rows, "facts": {"rejected": {"short": 1}}})
    assert funnel([true])[0].lost == {"language": 3, "short": 1}
    assert funnel([wrong])[0].lost == {"any reason": 4}


@pytest.mark.slow
def test_figures_of_the_tokenizer_and_of_its_shards_are_told(given):
    def with_figures(artifact, **figures):
        return Artifact(
            artifact.path,
            artifact.manifest.model_copy(update={"facts": {"figures": figures}}),
            artifact.digest,
        )

    changed = {
        "tokenizer": with_figures(given["tokenizer"], vocabulary=320),
        "token_shards": with_figures(given["token_shards"], train_tokens=12345),
    }
    card = data_card(DescribeConfig(), changed, None)
    assert (
        "## Tokens\n\n|  |  |\n|---|---|\n| vocabulary | 320 |\n| train_tokens | 12,345 |" in card
    )


def test_settings_are_told_as_they_were_given_without_digests_and_without_where_it_ran():
    manifest = _manifest("b" * 24, "preferences", "collect_preferences", {}).model_copy(
        update={
            "config": {"files": {"/home/me/pairs.jsonl": "0" * 64}, "seed": 0},
            "settings": {"files": ["~/pairs.jsonl"], "seed": 0, "workers": 2},
        }
    )
    assert json.loads(settings(manifest).strip("`json\n")) == {
        "files": ["~/pairs.jsonl"],
        "seed": 0,
    }


def test_settings_that_were_renamed_or_grouped_are_told_under_the_names_of_today():
    config = stages.stage("collect_chats").config_class.model_validate(
        {"limits": {"max_chars": 99}}
    )
    manifest = _manifest("b" * 24, "conversations", "collect_chats", {}).model_copy(
        update={"config": config.identity(), "settings": config.model_dump(mode="json")}
    )
    told = json.loads(settings(manifest).strip("`json\n"))
    assert told["limits"] == {"min_chars": 12, "max_chars": 99, "per_document": 1000}
    assert set(told) == set(type(config).model_fields) - {"workers"}


@pytest.mark.parametrize("stage", stages.NAMES)
def test_every_setting_that_affects_a_result_is_told(stage):
    config_class = stages.stage(stage).config_class
    config = config_class()
    manifest = _manifest("b" * 24, "conversations", stage, {}).model_copy(
        update={"config": config.identity(), "settings": config.model_dump(mode="json")}
    )
    affecting = {name for name in config_class.model_fields if not config._is_execution(name)}
    assert set(json.loads(settings(manifest).strip("`json\n"))) == affecting


def test_the_cards_tell_settings_as_they_were_given_and_notes_that_are_no_html(given):
    def with_settings_and_notes(artifact):
        update = {
            "config": {"files": {"/home/me/pairs.jsonl": "0" * 64}},
            "settings": {"files": ["~/pairs.jsonl"]},
            "facts": {"notes": ["a <script> & 2 > 1"]},
        }
        return Artifact(artifact.path, artifact.manifest.model_copy(update=update), artifact.digest)

    changed = {
        output: with_settings_and_notes(given[output])
        for output in ("clean_documents", "base_checkpoint", "scores")
    }
    model = model_card(DescribeConfig(), changed, None)
    data = data_card(DescribeConfig(), changed, None)
    for card in (model, data):
        assert '"~/pairs.jsonl"' in card
        assert "/home/me" not in card
    assert "\n- a &lt;script&gt; &amp; 2 &gt; 1\n" in model
    assert "\n- base_checkpoint: a &lt;script&gt; &amp; 2 &gt; 1\n" in model


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("x | y\n| z |", "x \\| y \\| z \\|"),
        ("a\\|b", "a\\\\\\|b"),
        ("<img src=x> &lt;", "&lt;img src=x&gt; &amp;lt;"),
        ("`code`, heldout_description", "`code`, heldout_description"),
    ],
)
def test_text_from_the_data_cannot_break_out_of_a_cell(text, cell):
    assert table(("a",), [[text]]).splitlines()[-1] == f"| {cell} |"


def test_text_from_the_data_cannot_break_out_of_a_quotation():
    quoted = quotation("a\n```\nb ````")
    assert quoted.startswith("`````text\n")
    assert quoted.endswith("\n`````")


@pytest.mark.slow
def test_pictures_take_rows_with_columns_missing_and_values_that_are_no_numbers():
    rows = [
        {"step": 0, "loss": 3.0},
        {"step": 1, "loss": float("nan")},
        {"step": 2},
        {"step": 3, "loss": None, "heldout_loss": 2.0},
    ]
    for svg in (
        pictures.loss_svg(rows),
        pictures.loss_svg([]),
        pictures.funnel_svg([]),
        pictures.scores_svg(golden.SCORES),
        pictures.scores_svg([]),
    ):
        assert svg.startswith("<?xml")
        assert svg.rstrip().endswith("</svg>")


@pytest.mark.slow
def test_pictures_and_lineage_are_usable_without_torch():
    code = (
        "import sys; sys.modules['torch'] = None; from stages.describe import stage; "
        "from stages.reporting import lineage, pictures; print(len(pictures.loss_svg([])))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 1000


def _manifest(id, artifact_type, stage, inputs):
    return Manifest(
        groundup="0",
        id=id,
        artifact_type=artifact_type,
        contract="1.0.0",
        stage=stage,
        stage_version=1,
        as_of=None,
        config={},
        settings={},
        inputs=inputs,
        rows={},
        facts={},
        files=[],
        started="",
        finished="",
    )


def _numbers(value):
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _numbers(item)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value
    elif isinstance(value, str):
        yield from (int(found) for found in re.findall(r"\b\d{1,9}\b", value))
