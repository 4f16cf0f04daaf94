"""A renamed or grouped setting: the old key is read with a note, and the id stays what it was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
from pydantic import Field, ValidationError

from stages.config import Settings, StageConfig, execution
from stages.renamed_settings import RenamedSettingWarning


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
        ({"training": {"batch_rows": 4}}, "batch_rows is now called batch_size"),
        ({"min_chars": 5}, "min_chars is now called length.min"),
        ({"max_chars": 50, "length": {"min": 5}}, "max_chars is now called length.max"),
    ],
)
def test_an_old_key_is_read_and_noted(values: dict[str, Any], path: str):
    with pytest.warns(RenamedSettingWarning, match=path):
        config = NewConfig.parse(values, "stage")
    assert config != NewConfig()
    assert "batch_rows" not in str(config.model_dump())


def test_settings_of_an_older_manifest_are_read_whole():
    old = OldConfig(training=OldTraining(batch_rows=4), max_chars=100, processes=3)
    with pytest.warns(RenamedSettingWarning):
        new = NewConfig.parse(old.model_dump(mode="json"), "stage")
    assert new.identity() == old.identity()
    assert new.workers == 3


def test_a_setting_under_both_of_its_names_is_refused():
    with pytest.raises(ValidationError, match=r"min_chars is now called length\.min: give one"):
        NewConfig.model_validate({"min_chars": 5, "length": {"min": 6}})


def test_a_frozen_key_is_shown_under_the_name_of_today():
    assert NewConfig.name_today("training.batch_rows") == "training.batch_size"
    assert NewConfig.name_today("max_chars") == "length.max"
    assert NewConfig.name_today("training") == "training"
    assert NewConfig.name_today("unknown.key.0") == "unknown.key.0"
