"""A renamed or grouped setting: the old key is read with a note, and the id stays what it was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
from pydantic import Field, ValidationError

import stages
from data_contracts import ConfigError
from stages import renamed_settings
from stages.config import Settings, StageConfig, execution
from stages.renamed_settings import RenamedSettingWarning, next_minor_version, stay_silent


class OldTraining(Settings):
    batch_rows: int = 8
    clip: float = 1.0


class OldConfig(StageConfig):
    training: OldTraining = OldTraining()
    min_chars: int = 12
    max_chars: int = 360
    processes: int = execution(0, "Processes")


class Training(Settings):
    RENAMED: ClassVar[Mapping[str, str]] = {"batch_rows": "batch_size", "clip": "grad_clip"}

    batch_size: int = 8
    grad_clip: float = 1.0


class Length(Settings):
    min: int = 12
    max: int = 360


class NewConfig(StageConfig):
    RENAMED: ClassVar[Mapping[str, str]] = {
        "min_chars": "length.min",
        "max_chars": "length.max",
        "processes": "workers",
    }

    training: Training = Training()
    length: Length = Field(Length(), description="Length of an answer")
    workers: int = execution(0, "Processes")


def test_the_id_is_made_from_the_same_keys_before_and_after():
    old = OldConfig(training=OldTraining(batch_rows=4), max_chars=100, processes=3)
    new = NewConfig(training=Training(batch_size=4), length=Length(max=100), workers=3)
    assert new.identity() == old.identity()
    assert new.identity() == {
        "training": {"batch_rows": 4, "clip": 1.0},
        "min_chars": 12,
        "max_chars": 100,
    }


@pytest.mark.parametrize(
    ("values", "path"),
    [
        (
            {"training": {"batch_rows": 4}},
            "setting stage.training.batch_rows is now called stage.training.batch_size",
        ),
        ({"min_chars": 5}, "setting stage.min_chars is now called stage.length.min"),
        (
            {"max_chars": 50, "length": {"min": 5}},
            "setting stage.max_chars is now called stage.length.max",
        ),
    ],
)
def test_an_old_key_is_read_and_noted_once_with_its_whole_path(values: dict[str, Any], path: str):
    with pytest.warns(RenamedSettingWarning) as notes:
        config = NewConfig.parse(values, "stage")
    (note,) = notes
    until = f"the old name is read until groundup {next_minor_version()}"
    assert str(note.message) == f"{path}; {until}"
    assert config != NewConfig()
    assert "batch_rows" not in str(config.model_dump())


def test_settings_of_an_older_manifest_are_read_whole():
    old = OldConfig(training=OldTraining(batch_rows=4), max_chars=100, processes=3)
    with pytest.warns(RenamedSettingWarning):
        new = NewConfig.parse(old.model_dump(mode="json"), "stage")
    assert new.identity() == old.identity()
    assert new.workers == 3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"min_chars": 5, "length": {"min": 6}},
            "stage.min_chars is now called stage.length.min, and both are given:"
            " keep stage.length.min",
        ),
        (
            {"training": {"clip": 1, "grad_clip": 2}},
            "stage.training.clip is now called stage.training.grad_clip, and both are given:"
            " keep stage.training.grad_clip",
        ),
    ],
)
def test_a_setting_under_both_of_its_names_is_refused_in_a_sentence(
    values: dict[str, Any], message: str
):
    with pytest.raises(ConfigError) as error:
        NewConfig.parse(values, "stage")
    assert error.value.why == message
    with pytest.raises(ValidationError, match="and both are given"):
        NewConfig.model_validate(values)


def test_old_names_are_read_until_the_minor_version_after_this_one(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(renamed_settings, "version", lambda package: "3.9.1.dev0")
    assert next_minor_version() == "3.10"


def test_a_frozen_key_is_shown_under_the_name_of_today():
    assert NewConfig.name_today("training.batch_rows") == "training.batch_size"
    assert NewConfig.name_today("max_chars") == "length.max"
    assert NewConfig.name_today("training") == "training"
    assert NewConfig.name_today("unknown.key.0") == "unknown.key.0"


def test_incomplete_settings_get_the_names_of_today_at_any_depth_and_each_is_reported():
    given = {"training": {"clip": 2.0}, "max_chars": 9, "unknown": 1}
    reported: list[str] = []
    found = NewConfig.with_names_of_today(
        given, lambda old, new: reported.append(f"{old} → {new}"), "stage."
    )
    assert found == {"training": {"grad_clip": 2.0}, "length": {"max": 9}, "unknown": 1}
    assert reported == [
        "stage.max_chars → stage.length.max",
        "stage.training.clip → stage.training.grad_clip",
    ]


def test_settings_under_both_names_are_left_for_the_check_to_refuse():
    given = {"min_chars": 5, "length": {"min": 6}}
    assert NewConfig.with_names_of_today(given, stay_silent) == given


RENAMED = [
    ("pretrain", {"training": {"batch_rows": 4}}, {"training": {"batch_size": 4}}),
    ("pretrain", {"training": {"spike": 9}}, {"training": {"stability": {"spike_threshold": 9}}}),
    ("sft", {"training": {"clip": 2}}, {"training": {"stability": {"grad_clip": 2}}}),
    (
        "sft",
        {"training": {"warmup_share": 0.2}},
        {"training": {"lr_schedule": {"warmup_share": 0.2}}},
    ),
    (
        "dpo",
        {"training": {"schedule": "cosine"}},
        {"training": {"lr_schedule": {"kind": "cosine"}}},
    ),
    (
        "dpo",
        {"training": {"matrix_learning_rate": 0.1}},
        {"training": {"muon_learning_rate": 0.1}},
    ),
    ("pretrain", {"compute": {"micro_batch_rows": 2}}, {"compute": {"micro_batch_size": 2}}),
    (
        "pretrain",
        {
            "model": {
                "architecture": "qwen3_moe",
                "experts": 4,
                "experts_per_token": 2,
                "expert_width": 8,
            }
        },
        {
            "model": {
                "architecture": "qwen3_moe",
                "moe": {"experts": 4, "experts_per_token": 2, "expert_width": 8},
            }
        },
    ),
    ("export_gguf", {"max_kl_8bit": 0.5}, {"max_kl": {"bits_8": 0.5}}),
]


@pytest.mark.parametrize(("stage", "old", "new"), RENAMED)
def test_every_setting_that_was_renamed_is_read_under_its_old_name_and_makes_the_same_id(
    stage: str, old: dict[str, Any], new: dict[str, Any]
):
    config_class = stages.stage(stage).config_class
    with pytest.warns(RenamedSettingWarning):
        read = config_class.parse(old, stage)
    assert read == config_class.parse(new, stage)
    assert read != config_class()
    for key, value in old.items():
        entered = read.identity().get(key, value)
        assert entered == value or entered == entered | value


@pytest.mark.parametrize("stage", ["pretrain", "sft", "dpo", "export_gguf"])
def test_no_frozen_key_is_a_name_of_today(stage: str):
    """So no setting that enters an id can be confused with another one."""
    config_class = stages.stage(stage).config_class
    for group in (config_class, *_groups(config_class)):
        assert not set(group.RENAMED) & set(group.model_fields)


def _groups(config_class: type[Settings]) -> list[type[Settings]]:
    found = []
    for key in config_class.model_fields:
        nested = config_class.model_fields[key].annotation
        if isinstance(nested, type) and issubclass(nested, Settings):
            found += [nested, *_groups(nested)]
    return found
