"""An environment variable that can be no folder or number is one error that names it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.flows.conftest import Groundup, free_port

HOME = "~no-such-user-here"


@pytest.mark.parametrize(
    ("variable", "value", "command"),
    [
        ("GROUNDUP_HOME", HOME, ["ls"]),
        ("GROUNDUP_HOME", HOME, ["up"]),
        ("GROUNDUP_STORE", f"{HOME}/x", ["ls"]),
        ("GROUNDUP_STORE", f"file://{HOME}/x", ["ls"]),
        ("GROUNDUP_CACHE", HOME, ["up"]),
        ("XDG_CACHE_HOME", HOME, ["up"]),
        ("GROUNDUP_GRACE_S", "abc", ["ls"]),
        ("GROUNDUP_GRACE_S", "nan", ["ls"]),
        ("GROUNDUP_GRACE_S", "inf", ["ls"]),
        ("GROUNDUP_GRACE_S", "-1", ["--version"]),
        ("GROUNDUP_PORT", "9" * 5000, ["up"]),
        ("GROUNDUP_TRUST_HOME", "yes", ["up"]),
    ],
)
def test_a_variable_that_can_be_no_folder_or_number_is_one_error_that_names_it(
    variable: str, value: str, command: list[str], tmp_path: Path
) -> None:
    groundup = Groundup(tmp_path / "home", free_port(), tmp_path, makes_database=True)
    groundup.environment[variable] = value
    done = groundup.run(*command, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.count("to repair: ") == 1
    assert done.stderr.startswith(f"error {variable}=")
