"""A command that fails says so in a line for people, in JSON for programs, without a traceback."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from flows.cli import commands, completion, talk
from tests.flows.conftest import REPOSITORY

GROUNDUP = str(Path(sys.executable).with_name("groundup"))
pytestmark = pytest.mark.slow  # each test starts at least one process


def groundup(
    home: Path, *arguments: str, shell: str = "", **more: str
) -> subprocess.CompletedProcess[str]:
    """Run `groundup` with its own home.

    Args:
        home: Its home, and its working folder.
        *arguments: The command and its options.
        shell: What a shell does with its output, e.g. `>/dev/full`.
        **more: More environment variables.
    """
    environment = {key: value for key, value in os.environ.items() if key != "COLUMNS"}
    environment |= {"PYTHONPATH": str(REPOSITORY), "GROUNDUP_HOME": str(home)} | more
    command = ["sh", "-c", f'"$0" "$@" {shell}', GROUNDUP, *arguments]
    return subprocess.run(
        command, cwd=home, env=environment, text=True, capture_output=True, timeout=300, check=False
    )


MISTAKES = {
    "no artifact": (["show", "demo/tokenizer"], "ConfigError"),
    "no command": (["buidl"], "UsageError"),
    "no option": (["ls", "--al"], "UsageError"),
    "no value": (["up", "--port", "x"], "UsageError"),
    "no stage": (["stage", "cralw"], "ConfigError"),
    "no setting": (["run", "--set", "dedup.treshold=1"], "ConfigError"),
    "no name": (["run", "--name", ""], "ConfigError"),
}


@pytest.mark.parametrize(("arguments", "kind"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_json_for_programs_and_a_line_for_people(
    arguments: list[str], kind: str, tmp_path: Path
) -> None:
    done = groundup(tmp_path, *arguments, "--json")
    assert done.returncode == 2
    error = json.loads(done.stdout)["error"]
    assert error["kind"] == kind
    assert all(error[part] for part in ("what", "why", "fix"))
    assert "Traceback" not in done.stderr
    assert "error" in done.stderr.lower()


def test_without_json_standard_output_stays_empty(tmp_path: Path) -> None:
    done = groundup(tmp_path, "show", "demo/tokenizer")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error artifact 'demo/tokenizer': ")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "command", [["ls"], ["ls", "--json"], ["stage", "dedup", "--keys"], ["-h"]]
)
def test_output_that_cannot_be_written_is_one_line(
    command: list[str], unbuffered: str, tmp_path: Path
) -> None:
    done = groundup(tmp_path, *command, shell=">/dev/full", PYTHONUNBUFFERED=unbuffered)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "error standard output: cannot be written: No space left on device",
        "  to repair: send the output elsewhere, or free some space there",
    ]


def test_a_reader_that_has_enough_is_no_failure(tmp_path: Path) -> None:
    done = groundup(tmp_path, "stage", "crawl", "--keys", shell="| true")
    assert done.stderr == ""


def test_a_pipe_that_breaks_between_processes_is_not_taken_for_a_reader_that_has_enough() -> None:
    command = """
import sys
from flows.cli import failures
def command():
    raise BrokenPipeError(32, "Broken pipe")
sys.exit(failures.status_of(command, False))
"""
    done = subprocess.run(
        [sys.executable, "-c", command], capture_output=True, text=True, cwd=REPOSITORY, timeout=300
    )
    assert done.returncode == 2
    message = "error a process that does a part of the work: ended or did not start: broken pipe\n"
    assert done.stderr.startswith(message)


def test_a_pipe_that_breaks_in_a_command_is_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def break_pipe(*_: object) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(talk, "talk", break_pipe)
    monkeypatch.setattr(sys, "argv", ["groundup", "chat", "demo"])
    with pytest.raises(SystemExit) as end:
        commands.main()
    assert end.value.code == 2
    assert "ended or did not start: broken pipe" in capsys.readouterr().err


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&-"])
def test_streams_that_are_closed_are_no_fault(closed: str, tmp_path: Path) -> None:
    done = groundup(tmp_path, "ls", shell=closed)
    assert done.returncode == 0
    assert done.stderr == ""


def test_a_store_that_is_a_file_is_reported_without_a_traceback(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.write_text("no folder")
    for command in (["ls"], ["show", "demo/tokenizer"], ["verify", "demo"]):
        done = groundup(tmp_path, *command, GROUNDUP_STORE=str(store))
        assert done.returncode == 2, command
        assert "Traceback" not in done.stderr
        assert "to repair: " in done.stderr


def test_names_that_can_never_be_are_refused_before_the_preview(tmp_path: Path) -> None:
    for command in (["run", "--preview"], ["stage", "crawl", "--preview"]):
        done = groundup(tmp_path, *command, "--name", "")
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("error name '': ")


def test_a_mistake_in_a_change_is_reported_of_the_change(tmp_path: Path) -> None:
    done = groundup(tmp_path, "run", "--preview", "--set", "dedup.threshold=high")
    assert done.stderr.startswith("error --set: dedup.threshold = 'high': ")
    of_stage = groundup(tmp_path, "stage", "dedup", "--preview", "--set", "threshold=high")
    assert of_stage.stderr.startswith("error --set threshold=high: dedup.threshold = 'high': ")
    assert "recipe" not in (done.stderr + of_stage.stderr).splitlines()[0]


def test_a_mistake_below_what_is_no_mapping_is_reported_of_the_change(tmp_path: Path) -> None:
    done = groundup(
        tmp_path, "run", "--recipe", "smoke", "--preview", "--set", "crawl.sources.0.name=3"
    )
    assert (done.returncode, done.stderr.partition(":")[0]) == (2, "error --set"), done.stderr
    done = groundup(
        tmp_path, "run", "--recipe", "smoke", "--preview", "--set", "crawl.https://u@h=3"
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        ["run", "--recipe", ""],
        ["run", "--as-of", " "],
        ["stage", "dedup", "--recipe", ""],
        ["up", "--host", ""],
        ["up", "--url", ""],
        ["chat", "demo", "--quantization", ""],
    ],
)
def test_an_empty_option_is_refused_and_never_means_the_default(
    command: list[str], tmp_path: Path
) -> None:
    done = groundup(tmp_path, *command)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error {command[-2]} {command[-1]!r}: is empty")
    assert not list(tmp_path.iterdir())


def test_a_command_line_that_is_wrong_is_a_line_and_says_where_help_is(tmp_path: Path) -> None:
    for command in (["completion", "tcsh"], ["up", "--port", "0"], ["-V"], ["nonsense"]):
        done = groundup(tmp_path, *command)
        assert done.returncode == 2
        message, advice = done.stderr.splitlines()
        assert message.startswith("error groundup")
        assert advice.endswith("--help")


def test_a_mistake_in_a_file_is_reported_with_its_line(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("extends: tiny\nstages:\n  dedup:\n    threshold: high\n")
    done = groundup(tmp_path, "run", "--preview", "--recipe", str(recipe))
    assert done.stderr.startswith(f"error recipe {recipe}: ")
    assert "line 4" in done.stderr
    changed = groundup(
        tmp_path, "run", "--preview", "--recipe", str(recipe), "--set", "dedup.threshold=low"
    )
    assert changed.stderr.startswith("error --set: dedup.threshold = 'low'"), "it replaces line 4"


def test_an_empty_question_is_refused(tmp_path: Path) -> None:
    for prompt in ("", "  "):
        done = groundup(tmp_path, "chat", "demo", "--prompt", prompt)
        assert done.returncode == 2
        assert done.stderr.startswith("error --prompt '': is empty")


@pytest.mark.parametrize(
    ("hidden", "why"), [(False, "is an empty folder"), (True, "holds hidden files alone")]
)
def test_an_empty_folder_is_called_empty(hidden: bool, why: str, tmp_path: Path) -> None:
    folder = tmp_path / "pages"
    folder.mkdir()
    if hidden:
        (folder / ".DS_Store").write_text("x")
    sources = f"crawl.sources=[{{kind: files, paths: ['{folder}']}}]"
    done = groundup(tmp_path, "stage", "crawl", "--set", sources)
    assert done.returncode == 2
    assert why in done.stderr


def test_paths_and_commands_are_whole_in_a_pipe_and_on_a_narrow_terminal(tmp_path: Path) -> None:
    home = tmp_path / ("long" * 20) / ("path" * 20)
    home.mkdir(parents=True)
    piped = groundup(home, "show", "demo/tokenizer").stderr
    narrow = groundup(home, "show", "demo/tokenizer", COLUMNS="40").stderr
    for message in (piped, narrow):
        assert str(home / "store") in message
        assert len(message.splitlines()) == 2


def test_a_heading_in_a_pipe_is_one_short_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    headings = "from flows.cli.console import heading; heading('scores'); heading()"
    printed = subprocess.run(
        [sys.executable, "-c", headings], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert [len(line) for line in printed] == [80, 80]
    assert " scores " in printed[0]


def test_descriptions_of_settings_take_the_width_of_the_terminal(tmp_path: Path) -> None:
    def longest_description(columns: int) -> int:
        lines = on_terminal(tmp_path, columns, "stage", "crawl", "--keys")
        return max(len(line.rstrip()) for line in lines if line.startswith("    "))

    assert 50 <= longest_description(60) <= 60
    assert longest_description(160) > 60, "a wide terminal is used"


def on_terminal(home: Path, columns: int, *arguments: str) -> list[str]:
    """The lines that a terminal of so many columns gets."""
    ours, theirs = pty.openpty()
    environment = os.environ | {
        "PYTHONPATH": str(REPOSITORY), "GROUNDUP_HOME": str(home), "COLUMNS": str(columns),
        "NO_COLOR": "1", "TERM": "xterm",
    }  # fmt: skip
    with subprocess.Popen([GROUNDUP, *arguments], stdout=theirs, env=environment) as process:
        os.close(theirs)
        output = b""
        try:
            while True:
                piece = os.read(ours, 65536)
                if not piece:
                    break
                output += piece
        except OSError:  # how Linux says that nobody writes to a terminal any more
            pass
        assert process.wait(300) == 0
    os.close(ours)
    return output.decode().splitlines()


@pytest.mark.parametrize("option", ["-h", "--help"])
@pytest.mark.parametrize("command", [[], ["run"], ["verify"], ["contracts", "check"]])
def test_help_has_two_names(option: str, command: list[str], tmp_path: Path) -> None:
    done = groundup(tmp_path, *command, option)
    assert done.returncode == 0
    assert "Usage: groundup" in done.stdout


def test_version_and_help_import_nothing_heavy(tmp_path: Path) -> None:
    heavy = ("torch", "prefect", "pyarrow", "numpy", "fsspec")
    program = (
        "import sys; from typer.testing import CliRunner; from flows.cli.commands import app\n"
        "said = [CliRunner().invoke(app, [one]).output for one in ('--version', '-h')]\n"
        f"print(said[0].split()[0], *(one for one in {heavy} if one in sys.modules))"
    )
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, text=True, capture_output=True, check=True
    )
    assert done.stdout == "groundup\n"


def test_every_shell_has_its_advice() -> None:
    assert set(completion.SHELLS) == set(completion.ADVICE)
