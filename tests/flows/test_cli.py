"""The command line as a program: what it prints where."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.flows.conftest import Groundup


@pytest.mark.slow
def test_with_json_standard_output_is_json_alone_and_progress_is_told_beside_it(tmp_path: Path) -> None:
    (tmp_path / "page.txt").write_text("A page of text.")
    sources = f"sources=[{{kind: files, paths: ['{tmp_path}/*.txt']}}]"
    done = Groundup(tmp_path / "home", 0).run("stage", "crawl", "--name", "pages", "--set", sources, "--json")
    (row,) = json.loads(done.stdout)
    assert row["rows"] == {"documents": 1, "failures": 0}
    assert "1 documents" in done.stderr
