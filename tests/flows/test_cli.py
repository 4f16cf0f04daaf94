"""The command line as a program: what it prints where."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import stages
from data_contracts import Interrupted, Store
from flows.cli import commands as cli
from flows.cli import tables, talk
from stages.crawl.config import DatasetSource, FilesSource, PydocSource, WebSource
from tests.flows.conftest import REPOSITORY, Groundup, free_port


@pytest.mark.slow
def test_with_json_standard_output_is_json_alone_and_progress_goes_to_standard_error(
    tmp_path: Path,
) -> None:
    (tmp_path / "page.txt").write_text("A page of text.")
    sources = f"sources=[{{kind: files, paths: ['{tmp_path}/*.txt']}}]"
    done = Groundup(tmp_path / "home", 0).run(
        "stage", "crawl", "--name", "pages", "--set", sources, "--json"
    )
    (row,) = json.loads(done.stdout)
    assert row["rows"] == {"documents": 1, "failures": 0, "fetches": 0}
    assert "1 documents" in done.stderr


@pytest.mark.slow
def test_your_own_pages_become_a_model_that_chats(tmp_path: Path) -> None:
    groundup = Groundup(tmp_path, free_port())
    pages = '["*.md", "docs/**/*.md", "stages/**/*.md", "data_contracts/**/*.md"]'
    few_steps = ("--set", "pretrain.training.duration=10", "--set", "sft.training.duration=10")
    sources = f"crawl.sources=[{{kind: files, paths: {pages}}}]"
    done = groundup.run("run", "--name", "mine", "--recipe", "own", "--set", sources, *few_steps)
    assert "15 stages run" in done.stdout
    assert groundup.run("chat", "mine", "--prompt", "What are you?").returncode == 0
    talk = groundup.run("chat", "mine", typed="What are you?\n" * 20)
    assert len(re.findall(r"^> ", talk.stdout, re.MULTILINE)) == 21, (
        "a conversation longer than the context goes on, and the end of the input ends it"
    )
    assert groundup.run("down").stdout == "nothing was up\n", "a run takes its server with it"


@pytest.mark.slow
def test_a_server_that_dies_under_a_run_is_reported_and_the_same_command_goes_on(
    tmp_path: Path,
) -> None:
    groundup = Groundup(tmp_path, free_port())
    groundup.environment["PREFECT_CLIENT_MAX_RETRIES"] = "0"  # Prefect would ask for minutes
    sources = "crawl.sources=[{kind: files, paths: ['*.md']}]"
    # A run that trains notices only when the stage is done.
    short = "pretrain.training.duration=200"
    command = ("run", "--recipe", "own", "--set", sources, "--set", short)
    with groundup.started(*command) as run:
        assert run.stdout
        assert any("✓ crawl" in line for line in run.stdout)
        record = json.loads((tmp_path / "prefect" / "server.json").read_text())
        os.kill(record["pid"], signal.SIGKILL)
        output = run.stdout.read()
    assert run.returncode == 2
    assert f"error the Prefect server at {groundup.url}: does not answer any more" in output
    assert "Traceback" not in output
    with groundup.started(*command) as run:
        assert run.stdout
        line = next(line for line in run.stdout if "crawl" in line)
        assert re.search(r"✓ crawl +up to date", line)
        run.send_signal(signal.SIGINT)
        assert run.stdout.read().endswith("interrupted; run the same command again to go on\n")
    assert groundup.run("down").stdout == "nothing was up\n"


COUNT_PARSING = """
import json, os, sys
from collections import Counter
from pathlib import Path
from stages.config import StageConfig

counts = Counter()
validate = StageConfig.model_validate.__func__

def counted(cls, *arguments, **options):
    counts[cls.__name__] += 1
    return validate(cls, *arguments, **options)

StageConfig.model_validate = classmethod(counted)
from flows.cli import commands
try:
    commands.main()
finally:
    Path(os.environ["COUNTS"]).write_text(json.dumps(counts))
"""


@pytest.mark.slow
def test_a_whole_run_parses_each_configuration_once(tmp_path: Path) -> None:
    groundup = Groundup(tmp_path / "home", free_port())
    counts = tmp_path / "counts.json"
    command = ["run", "--recipe", "smoke", "--set", "pretrain.training.duration=10"]
    environment = groundup.environment | {"COUNTS": str(counts)}
    subprocess.run(
        [sys.executable, "-c", COUNT_PARSING, *command], env=environment, cwd=REPOSITORY, check=True
    )
    parsed = json.loads(counts.read_text())
    names = [stage.config_class.__name__ for stage in stages.STAGES]
    assert {name: parsed.get(name) for name in names} == dict.fromkeys(names, 1)


def test_the_keys_of_a_stage_are_all_that_a_person_can_set(
    capsys: pytest.CaptureFixture[str],
) -> None:
    tables.keys(stages.stage("crawl"), True)
    keys = {row["key"]: row for row in json.loads(capsys.readouterr().out)["settings"]}
    for kind in (WebSource, FilesSource, DatasetSource, PydocSource):
        prefix = f"crawl.sources[{kind.model_fields['kind'].default}]"
        single = set(kind.model_fields) - {"limits", "pace"}  # settings in a group are keys
        assert {f"{prefix}.{field}" for field in single} <= keys.keys()
    assert keys["crawl.sources[web].limits.max_pages"]["default"] == 1000
    assert keys["crawl.sources[web].seeds"]["required"]
    tables.keys(stages.stage("pretrain"), True)
    assert '"pretrain.training.learning_rate"' in capsys.readouterr().out


def test_what_a_run_remembers_can_be_typed_again(
    store: Store, tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a page.md").write_text("text")
    changes = [
        f"crawl.sources=[{{kind: files, paths: ['{tmp_path}/*.md']}}]",
        "dedup.threshold=0.7",
    ]
    store.remember_recipe("mine", "own", changes)
    monkeypatch.setattr(cli, "open_store", lambda: store)
    cli.run(name="mine", preview_=True)
    typed = capsys.readouterr().out.splitlines()[0].removeprefix("as last time: ")
    assert shlex.split(typed) == ["--recipe", "own", "--set", changes[0], "--set", changes[1]]


def test_a_stage_that_was_stopped_is_no_error(
    monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(**_: object) -> None:
        raise Interrupted(
            "training",
            "was stopped after step 7 of 20",
            "run the same command again: it continues from there",
        )

    monkeypatch.setattr(cli, "app", stop)
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 130
    assert " ".join(capsys.readouterr().err.split()) == (
        "interrupted; training was stopped after step 7 of 20;"
        " run the same command again: it continues from there"
    )


def test_ctrl_c_ends_a_conversation_in_silence(
    monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def leave(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(talk, "talk", leave)
    cli.chat("demo")
    output = capsys.readouterr()
    assert (output.out, output.err) == ("\n", "")


@pytest.mark.parametrize(
    ("given", "wanted"),
    [({}, "2000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None)],
)
def test_threads_that_wait_sleep_soon_unless_the_environment_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], wanted: str | None
) -> None:
    monkeypatch.setattr(os, "environ", given)
    monkeypatch.setattr(cli, "app", lambda **_: None)
    with pytest.raises(SystemExit):
        cli.main()
    assert given.get("GOMP_SPINCOUNT") == wanted


def test_names_are_whole_in_a_narrow_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tables.out, "width", 24)
    tables.rows(
        [
            {
                "artifact": "training_documents",
                "rows": "1,387 documents and as many words as would need two lines",
            }
        ],
        False,
        "",
    )
    assert "training_documents " in capsys.readouterr().out


@pytest.mark.slow
def test_a_setting_of_another_stage_is_refused_with_what_to_do(tmp_path: Path) -> None:
    done = Groundup(tmp_path, 4200).run("stage", "dedup", "--set", "clean.rules=[c4]", check=False)
    assert done.returncode == 2
    assert "error --set clean.rules=[c4]: is a setting of clean" in done.stderr


@pytest.mark.slow
def test_a_date_that_is_none_is_refused(tmp_path: Path) -> None:
    done = Groundup(tmp_path, 4200).run("run", "--as-of", "tomorrow", "--preview", check=False)
    assert "error --as-of tomorrow: is not a date" in done.stderr
