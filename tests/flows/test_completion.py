"""What a shell gets at TAB: asked as the shells' own scripts ask."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flows.cli import completion
from tests.flows.conftest import REPOSITORY

BIN = Path(sys.executable).parent
pytestmark = pytest.mark.slow


def environment(home: Path) -> dict[str, str]:
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "PYTHONPATH": str(REPOSITORY), "GROUNDUP_HOME": str(home)}


def offered(home: Path, line: str) -> list[str]:
    """What bash would offer at the end of the line."""
    words = line.split(" ")
    asked = {
        "_GROUNDUP_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
    }
    done = subprocess.run(
        [BIN / "groundup"], env=environment(home) | asked, cwd=home, text=True,
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_a_shell_takes_its_script(shell: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [BIN / "groundup", "completion", shell], env=environment(tmp_path), text=True,
        capture_output=True, check=True,
    )  # fmt: skip
    assert "_GROUNDUP_COMPLETE" in done.stdout
    assert done.stdout.startswith("# ")
    if program := shutil.which(shell):
        subprocess.run([program, "-n"], input=done.stdout, text=True, check=True)


def test_bash_completes_a_word_with_the_script(tmp_path: Path) -> None:
    program = """
        eval "$(groundup completion bash)"
        COMP_WORDS=(groundup li) COMP_CWORD=1
        $(complete -p groundup | sed 's/.*-F \\([^ ]*\\).*/\\1/') groundup
        echo "${COMPREPLY[@]}"
    """
    done = subprocess.run(
        ["bash", "-c", program],
        env=environment(tmp_path),
        text=True,
        capture_output=True,
        check=True,
    )
    assert done.stdout.split() == ["lineage"]


def test_stages_recipes_and_settings_are_offered(tmp_path: Path) -> None:
    assert offered(tmp_path, "groundup stage ded") == ["dedup"]
    assert "tiny" in offered(tmp_path, "groundup run --recipe ti")
    assert "dedup.threshold=" in offered(tmp_path, "groundup run --set dedup.thr")


def test_runs_are_offered(tmp_path: Path) -> None:
    refs = tmp_path / "store" / "refs"
    (refs / "mine").mkdir(parents=True)
    assert offered(tmp_path, "groundup ls mi") == completion_of_runs(tmp_path, "mi")


def completion_of_runs(home: Path, beginning: str) -> list[str]:
    from data_contracts import open_store

    known = open_store(str(home / "store")).refs.runs()
    return [name for name in known if name.startswith(beginning)]


def test_what_goes_wrong_offers_nothing_and_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("no folder")
    assert offered(tmp_path, "groundup show de") == []
