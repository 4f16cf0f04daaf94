"""The command line as a program: what it prints where."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.flows.conftest import Groundup, free_port


@pytest.mark.slow
def test_with_json_standard_output_is_json_alone_and_progress_is_told_beside_it(tmp_path: Path) -> None:
    (tmp_path / "page.txt").write_text("A page of text.")
    sources = f"sources=[{{kind: files, paths: ['{tmp_path}/*.txt']}}]"
    done = Groundup(tmp_path / "home", 0).run("stage", "crawl", "--name", "pages", "--set", sources, "--json")
    (row,) = json.loads(done.stdout)
    assert row["rows"] == {"documents": 1, "failures": 0}
    assert "1 documents" in done.stderr


@pytest.mark.slow
def test_your_own_pages_become_a_model_that_chats(tmp_path: Path) -> None:
    groundup = Groundup(tmp_path, free_port())
    pages = '["*.md", "docs/**/*.md", "stages/**/*.md", "data_contracts/**/*.md"]'
    few_steps = ("--set", "pretrain.training.duration=10", "--set", "sft.training.duration=10")
    told = groundup.run("run", "--name", "mine", "--recipe", "own", "--set", f"crawl.sources=[{{kind: files, paths: {pages}}}]", *few_steps)
    assert "15 stages run" in told.stdout
    assert groundup.run("chat", "mine", "--prompt", "What are you?").returncode == 0
    talk = groundup.run("chat", "mine", typed="What are you?\n" * 20)
    assert len(re.findall(r"^> ", talk.stdout, re.MULTILINE)) == 21, (
        "a talk longer than the context goes on, and the end of the input ends it"
    )
    assert groundup.run("down").stdout == "nothing was up\n", "a run takes its server with it"


def test_a_setting_of_another_stage_is_refused_with_what_to_do(tmp_path: Path) -> None:
    done = Groundup(tmp_path, 4200).run("stage", "dedup", "--set", "clean.rules=[c4]", check=False)
    assert done.returncode == 2
    assert "error --set clean.rules=[c4]: is a setting of clean" in done.stderr


def test_a_date_that_is_none_is_refused(tmp_path: Path) -> None:
    done = Groundup(tmp_path, 4200).run("run", "--as-of", "tomorrow", "--preview", check=False)
    assert "error --as-of tomorrow: is not a date" in done.stderr
