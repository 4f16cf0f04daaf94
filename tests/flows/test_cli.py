"""The command line as a program: what it prints where."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
from pathlib import Path
from typing import Any

import pytest

import stages
from data_contracts import Interrupted, Store
from flows.cli import commands as cli
from flows.cli import tables, talk
from stages.crawl.config import DatasetSource, FilesSource, PydocSource, WebSource
from tests.flows.conftest import Groundup, free_port


@pytest.mark.slow
def test_with_json_standard_output_is_json_alone_and_progress_is_told_beside_it(
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
    told = groundup.run(
        "run",
        "--name",
        "mine",
        "--recipe",
        "own",
        "--set",
        f"crawl.sources=[{{kind: files, paths: {pages}}}]",
        *few_steps,
    )
    assert "15 stages run" in told.stdout
    assert groundup.run("chat", "mine", "--prompt", "What are you?").returncode == 0
    talk = groundup.run("chat", "mine", typed="What are you?\n" * 20)
    assert len(re.findall(r"^> ", talk.stdout, re.MULTILINE)) == 21, (
        "a talk longer than the context goes on, and the end of the input ends it"
    )
    assert groundup.run("down").stdout == "nothing was up\n", "a run takes its server with it"


@pytest.mark.slow
def test_a_server_that_dies_under_a_run_is_told_and_the_same_command_goes_on(
    tmp_path: Path,
) -> None:
    groundup = Groundup(tmp_path, free_port())
    groundup.environment["PREFECT_CLIENT_MAX_RETRIES"] = "0"  # Prefect would ask for minutes
    short = (
        "--set",
        "pretrain.training.duration=200",
    )  # a run that trains learns of it when the stage is done
    command = (
        "run",
        "--recipe",
        "own",
        "--set",
        "crawl.sources=[{kind: files, paths: ['*.md']}]",
        *short,
    )
    with groundup.started(*command) as run:
        assert run.stdout
        assert any("✓ crawl" in line for line in run.stdout)
        os.kill(
            json.loads((tmp_path / "prefect" / "server.json").read_text())["pid"], signal.SIGKILL
        )
        told = run.stdout.read()
    assert run.returncode == 2
    assert f"error the Prefect server at {groundup.url}: does not answer any more" in told
    assert "Traceback" not in told
    with groundup.started(*command) as run:
        assert run.stdout
        assert re.search(
            r"✓ crawl +up to date", next(line for line in run.stdout if "crawl" in line)
        )
        run.send_signal(signal.SIGINT)
        assert run.stdout.read().endswith("interrupted; run the same command again to go on\n")
    assert groundup.run("down").stdout == "nothing was up\n"


def test_the_keys_of_a_stage_are_all_that_a_person_can_set(
    capsys: pytest.CaptureFixture[str],
) -> None:
    tables.keys(stages.stage("crawl"), True)
    keys = {row["key"]: row for row in json.loads(capsys.readouterr().out)["settings"]}
    for kind in (WebSource, FilesSource, DatasetSource, PydocSource):
        assert {
            f"crawl.sources[{kind.model_fields['kind'].default}].{field}"
            for field in kind.model_fields
            if field not in ("limits", "pace")  # groups: the settings in them are keys
        } <= keys.keys()
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
    store.follow("mine", "own", changes)
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
    told = "interrupted; training was stopped after step 7 of 20; run the same command again: it continues from there"
    assert " ".join(capsys.readouterr().err.split()) == told


def test_a_talk_is_left_with_ctrl_c_in_silence(
    monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def leave(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(talk, "talk", leave)
    cli.chat("demo")
    told = capsys.readouterr()
    assert (told.out, told.err) == ("\n", "")


@pytest.mark.parametrize(
    ("given", "wanted"),
    [({}, "2000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None)],
)
def test_threads_that_wait_sleep_soon_unless_told_otherwise(
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
