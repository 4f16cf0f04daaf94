"""infra/install.sh, with a pip and a uv that only print what they were asked."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.flows.conftest import REPOSITORY

PIP_CONF = """[global]
index-url = https://a/simple
extra-index-url =
  https://b/simple
  https://c/simple
find-links =
  /x
  /y
"""


@pytest.mark.slow
def test_setup_hands_over_where_pip_finds_packages_and_keeps_its_environment(
    tmp_path: Path,
) -> None:
    (tmp_path / "infra").mkdir()
    shutil.copy(REPOSITORY / "infra" / "install.sh", tmp_path / "infra")
    (tmp_path / "pip.conf").write_text(PIP_CONF)
    tools = tmp_path / ".venv" / "bin"
    tools.mkdir(parents=True)
    _script(
        tools / "python",
        f'case "$*" in *running_server*) exit 1 ;; esac; exec {sys.executable} "$@"',
    )
    _script(tools / "uv", "env")
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_"))
    }
    environment |= {"PIP_CONFIG_FILE": str(tmp_path / "pip.conf"), "PYTHON": sys.executable}
    script = tmp_path / "infra" / "install.sh"
    done = subprocess.run(script, env=environment, capture_output=True, text=True, check=True)
    for line in (
        "DEFAULT_INDEX=https://a/simple",
        "INDEX=https://b/simple https://c/simple",
        "FIND_LINKS=/x,/y",
    ):
        assert f"\nUV_{line}\n" in done.stdout
    assert done.stderr == "Prefect could not be started now: the first run will try again.\n"


@pytest.mark.slow
def test_setup_makes_its_environment_anew_for_another_python(tmp_path: Path) -> None:
    (tmp_path / "infra").mkdir()
    shutil.copy(REPOSITORY / "infra" / "install.sh", tmp_path / "infra")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    _script(tmp_path / ".venv" / "bin" / "python", f'exec {sys.executable} "$@"')
    _script(
        tmp_path / "other",
        'case "$*" in *base_prefix*) echo other ;; *venv*) echo "made with: $*"; exit 1 ;; esac',
    )
    done = subprocess.run(
        [tmp_path / "infra" / "install.sh"],
        env=os.environ | {"PYTHON": str(tmp_path / "other")},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "made with: -m venv --clear .venv\n"
    assert done.returncode == 2


def _script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
