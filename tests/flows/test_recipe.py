"""Recipes: what they say of all stages, and how every mistake in one is reported."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import stages
from data_contracts import ConfigError
from flows import recipe
from stages.renamed_settings import RenamedSettingWarning


@pytest.mark.parametrize("name", recipe.NAMES)
@pytest.mark.filterwarnings("error::stages.renamed_settings.RenamedSettingWarning")
def test_every_shipped_recipe_is_valid_and_says_what_it_is_about_under_the_names_of_today(name):
    loaded = recipe.load(name)
    assert loaded.about
    assert set(loaded.configs) == set(stages.NAMES)


def test_a_change_overrides_the_recipe_and_leaves_its_neighbours(tmp_path):
    path = _write(
        tmp_path, "stages:\n  pretrain:\n    training: {learning_rate: 0.01, batch_size: 4}\n"
    )
    config = recipe.load(path, ["pretrain.training.learning_rate=0.02"]).configs["pretrain"]
    assert (config.training.learning_rate, config.training.batch_size) == (0.02, 4)


def test_all_mistakes_are_reported_at_once_with_line_and_nearest_key(tmp_path):
    path = _write(
        tmp_path, "about: x\nstages:\n  dedup:\n    treshold: 0.7\n    ngram: -1\n  cleen: {}\n"
    )
    with pytest.raises(ConfigError) as error:
        recipe.load(path, ["pack.sede=1"])
    message = str(error.value)
    assert "line 4: dedup.treshold is not a setting; did you mean 'threshold'?" in message
    assert "line 5: dedup.ngram = -1" in message
    assert "line 6: stages.cleen is not known; did you mean 'clean'?" in message
    assert "--set: pack.sede is not a setting; did you mean 'seed'?" in message


def test_a_mistake_in_an_extended_recipe_is_reported_with_that_file(tmp_path):
    base = _write(tmp_path, "about: base\nstages:\n  dedup: {ngram: -1}\n", "base.yaml")
    with pytest.raises(ConfigError, match=r"base\.yaml line 3: dedup\.ngram = -1"):
        recipe.load(_write(tmp_path, f"extends: {base}\nstages:\n  dedup: {{threshold: 0.5}}\n"))


def test_stages_may_be_left_empty(tmp_path):
    assert (
        recipe.load(_write(tmp_path, "extends: tiny\nstages:\n  dedup:\n")).configs
        == recipe.load("tiny").configs
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("about: x\nabout: y\n", "line 2: 'about' is given twice"),
        ("about: &a x\nprompts: [*a]\n", "aliases"),
        ("about: [x\n", "is not YAML"),
        ("- a\n", "is not a mapping"),
        ("stagges: {}\n", "did you mean 'stages'?"),
        ("about: x\nstages: [dedup]\n", "line 2: stages is ['dedup']"),
        ("stages:\n  dedup: 3\n", "line 2: stages.dedup is 3"),
        ("prompts: who\n", "line 1: prompts is 'who'"),
        ("extends: tinny\n", "did you mean 'tiny'?"),
        ("about: x\n1: x\n", "line 2: YAML does not read the key '1' as text"),
        ("stages:\n  dedup: {3.5: 1}\n", "line 2: YAML does not read the key '3.5' as text"),
        ("about: 2026-02-30\n", "is not YAML: day is out of range"),
        ("stages: {crawl: !!python/object/apply:os.system [true]}\n", "is not YAML"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused_with_the_reason(tmp_path, text, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        recipe.load(_write(tmp_path, text))


def test_a_recipe_that_extends_itself_is_refused(tmp_path):
    path = tmp_path / "loop.yaml"
    path.write_text(f"extends: {path}\n")
    with pytest.raises(ConfigError, match="extends itself"):
        recipe.load(str(path))


def test_extends_merges_mappings_and_replaces_lists(tmp_path):
    base = _write(
        tmp_path,
        "about: base\nprompts: [a, b]\nstages: {dedup: {threshold: 0.5, ngram: 3}}\n",
        "base.yaml",
    )
    loaded = recipe.load(
        _write(tmp_path, f"extends: {base}\nprompts: [c]\nstages: {{dedup: {{ngram: 7}}}}\n")
    )
    assert loaded.prompts == ("c",)
    assert (loaded.configs["dedup"].threshold, loaded.configs["dedup"].ngram) == (0.5, 7)


def test_a_file_that_is_edited_during_a_run_changes_nothing_in_it(tmp_path):
    path = _write(tmp_path, "seed: 1\n")
    shown = recipe.load(path, ["dedup.ngram=7"])
    _write(tmp_path, "seed: 2\n")
    with recipe.already_resolved(path, ["dedup.ngram=7"], shown):
        assert recipe.resolve(path, ["dedup.ngram=7"]) is shown
        assert recipe.resolve(path, []).configs["pack"].seed == 2, "another run"
    assert recipe.resolve(path, ["dedup.ngram=7"]).configs["pack"].seed == 2


def test_the_seed_of_a_recipe_reaches_every_stage_that_has_one(tmp_path):
    loaded = recipe.load(_write(tmp_path, "seed: 77\nstages: {dedup: {seed: 5}}\n"))
    assert loaded.configs["pretrain"].seed == 77
    assert loaded.configs["dedup"].seed == 5


def test_a_bad_seed_of_a_recipe_is_reported_once_with_its_line(tmp_path):
    with pytest.raises(ConfigError) as error:
        recipe.load(_write(tmp_path, "about: x\nseed: one\nstages: {dedup: {seed: two}}\n"))
    heading, *lines = (line.strip() for line in error.value.why.splitlines())
    reason = "must be a whole number"
    assert heading == "has these mistakes:"
    assert sorted(lines) == [
        f"line 2: seed = 'one': {reason}",
        f"line 3: dedup.seed = 'two': {reason}",
    ]


def test_an_impossible_date_is_refused():
    with pytest.raises(ConfigError, match="the value is not YAML: day is out of range"):
        recipe.load("tiny", ["dedup.threshold=2026-02-30"])


def test_only_true_and_false_are_booleans(tmp_path):
    text = """stages:
  clean: {language: {keep: [no]}}
  pretrain: {compute: {compile: on}}
  dedup: {verify: false}
"""
    by_file = recipe.load(_write(tmp_path, text)).configs
    assert by_file["clean"].language.keep == ("no",)
    assert by_file["pretrain"].compute.compile == "on"
    assert by_file["dedup"].verify is False
    changes = ["pretrain.compute.compile=off", "dedup.verify=true"]
    by_change = recipe.load("own", changes).configs
    assert by_change["pretrain"].compute.compile == "off"
    assert by_change["dedup"].verify is True


def test_of_several_changes_of_one_key_the_last_counts():
    assert recipe.latest_changes(["a.b=1", "a.c=2", "a.b =3"]) == ["a.c=2", "a.b =3"]


def test_the_prompts_of_a_recipe_reach_the_stages_that_ask_the_model(tmp_path):
    loaded = recipe.load(
        _write(tmp_path, "prompts: [who]\nstages: {export_gguf: {prompts: [what]}}\n")
    )
    assert loaded.configs["evaluate"].prompts == ["who"]
    assert loaded.configs["export_gguf"].prompts == ["what"]
    assert loaded.configs["collect_preferences"].prompts == 256


def _write(folder: Path, text: str, name: str = "mine.yaml") -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


def test_an_old_name_of_a_setting_overrides_the_new_one_of_the_recipe_that_is_extended(tmp_path):
    path = _write(
        tmp_path,
        "extends: tiny\nstages:\n  pretrain:\n    training: {batch_rows: 4, decay_share: 0.25}\n",
    )
    with pytest.warns(RenamedSettingWarning, match=r"pretrain\.training\.batch_rows is now called"):
        training = recipe.load(path).configs["pretrain"].training
    assert (training.batch_size, training.lr_schedule.decay_share) == (4, 0.25)


def test_a_change_under_an_old_name_overrides_the_recipe_and_is_noted():
    with pytest.warns(RenamedSettingWarning, match=r"pretrain\.training\.batch_size; the old name"):
        loaded = recipe.load("tiny", ["pretrain.training.batch_rows=4"])
    assert loaded.configs["pretrain"].training.batch_size == 4


def test_a_mistake_that_two_settings_make_together_is_that_of_the_one_on_the_command_line():
    with pytest.raises(ConfigError, match="devices 1 must be a multiple of replicas 3") as error:
        recipe.load("smoke", ["pretrain.compute.replicas=3"])
    assert error.value.what == "--set"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("dedup.threshold=abc", "dedup.threshold = 'abc': must be a number"),
        ("pretrain.training.batch_size=1.5", "must be a whole number"),
        ("pretrain.training=4", "pretrain.training = 4: must be settings"),
        ("evaluate.limit=-1", "must be greater than or equal to 1"),
        ("pretrain.compute.compile=yes", "must be 'auto', 'on' or 'off'"),
        ("crawl.sources=[{kind: webb}]", "kind 'webb' is none of web, pydoc, files, dataset"),
        ("crawl.sources=[{kind: pydoc, name: 3}]", "crawl.sources.0.name = 3: must be text"),
    ],
)
def test_a_wrong_value_is_reported_in_the_words_of_a_person(change: str, reason: str) -> None:
    with pytest.raises(ConfigError) as error:
        recipe.load("smoke", [change])
    assert reason in str(error.value)
