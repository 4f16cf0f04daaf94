"""Old names of settings, as a person on the command line meets them."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import stages
from data_contracts import Store
from flows import preview
from flows.cli import renamed_notes
from flows.settings import settings_for
from stages.renamed_settings import RenamedSettingWarning, next_minor_version, warn
from tests.flows.test_cli_errors import groundup

OLD = {"training": {"batch_rows": 4, "warmup_share": 0.25}, "compute": {"micro_batch_rows": 2}}


@pytest.mark.slow
def test_a_setting_under_its_old_name_is_taken_and_noted_in_one_line(tmp_path: Path):
    done = groundup(tmp_path, "stage", "pretrain", "--preview", "--set", "training.clip=2")
    note = (
        "note: setting pretrain.training.clip is now called pretrain.training.stability.grad_clip; "
        f"the old name is read until groundup {next_minor_version()}"
    )
    assert done.stderr.splitlines()[0] == note
    assert done.stderr.count("is now called") == 1


def test_other_warnings_are_shown_as_before(monkeypatch: pytest.MonkeyPatch, capsys: Any):
    shown: list[str] = []
    monkeypatch.setattr(
        warnings, "showwarning", lambda message, *_, **__: shown.append(f"{message}")
    )
    renamed_notes.show_on_console()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("something else", UserWarning, stacklevel=1)
        warn("old", "new")
    assert shown == ["something else"]


@pytest.fixture
def older_run(store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store whose run `demo` was made with settings under their old names."""
    ref = SimpleNamespace(stage="pretrain", settings=OLD)
    monkeypatch.setattr(type(store.refs), "get", lambda self, name, output: ref)
    return store


def test_settings_of_an_older_run_are_read_without_a_note_and_changed_under_the_new_name(
    older_run: Store,
):
    row = stages.stage("pretrain")
    with warnings.catch_warnings():
        warnings.simplefilter("error", RenamedSettingWarning)
        config: Any = preview.last_config(older_run, "demo", row)
        changes = ["training.batch_size=8"]
        changed: Any = settings_for(older_run, row, "demo", None, changes)
    assert (config.training.batch_size, config.compute.micro_batch_size) == (4, 2)
    assert (changed.training.batch_size, changed.training.lr_schedule.warmup_share) == (8, 0.25)
