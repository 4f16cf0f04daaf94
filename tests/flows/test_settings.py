"""Settings of a single stage: from a form they are changes like any other, and all are checked."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

import stages
from flows import recipe
from flows.settings import changes_in_form, settings_for
from flows.stage_flows import SUBFLOWS, changes_model


def form(stage_name: str, **values: object) -> object:
    return changes_model(stages.stage(stage_name).config_class).model_validate(values)


def test_an_untouched_form_changes_nothing():
    for name in stages.NAMES:
        assert list(changes_in_form(form(name), name)) == []


def test_fields_of_a_form_are_changes_that_give_the_same_values_again(store):
    typed = form(
        "pretrain",
        seed=6,
        training={"learning_rate": 1e-05, "lr_schedule": {"warmup_share": 0}},
        model={"width": 64, "heads": 4, "kv_heads": 2},
    )
    changes = list(changes_in_form(typed, "pretrain"))
    assert sorted(text.partition("=")[0] for text in changes) == [
        "pretrain.model.heads",
        "pretrain.model.kv_heads",
        "pretrain.model.width",
        "pretrain.seed",
        "pretrain.training.learning_rate",
        "pretrain.training.lr_schedule.warmup_share",
    ]
    config = settings_for(store, stages.stage("pretrain"), None, "tiny", changes)
    assert recipe.load("tiny", changes).configs["pretrain"] == config
    assert (config.seed, config.training.learning_rate, config.model.width) == (6, 1e-05, 64)
    assert config.model.layers == recipe.load("tiny").configs["pretrain"].model.layers


def test_lists_and_texts_survive_as_they_were_typed(store):
    sources = [{"kind": "files", "paths": ["C:\\a = b", "é: [x]"], "name": "mine"}]
    changes = list(changes_in_form(form("crawl", sources=sources), "crawl"))
    config = settings_for(store, stages.stage("crawl"), None, None, changes)
    assert config.sources[0].paths == sources[0]["paths"]


def test_a_stage_of_a_whole_run_takes_its_configuration_without_parsing_it_again():
    for name, config in recipe.load("smoke").configs.items():
        parameters = {"name": "demo", "settings": config, "inputs": {}, "as_of": ""}
        assert SUBFLOWS[name].validate_parameters(parameters)["settings"] is config


@pytest.mark.parametrize("values", [{"sed": 6}, {"training": {"learning_ratee": 1.0}}])
def test_a_misspelt_field_is_refused_not_ignored(values):
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        form("pretrain", **values)
