"""A new stage is what CONTRIBUTING says: a folder, a row, a contract, an input and a line."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PACKAGES = ("data_contracts", "stages", "flows", "infra", "tests")
FILES = ("README.md", "pyproject.toml", "Makefile")

CONFIG = '''"""Settings of count_words."""

from __future__ import annotations

from pydantic import Field

from stages.config import StageConfig


class CountWordsConfig(StageConfig):
    min_length: int = Field(
        1, ge=1, le=100, description="Shortest word that is counted, in characters"
    )
'''

STAGE = '''"""count_words: how often each word stands in the training documents."""

from __future__ import annotations

from collections import Counter

from data_contracts import Artifact, Draft, InputError
from stages.count_words.config import CountWordsConfig
from stages.report import Facts, Report


def run(
    config: CountWordsConfig, *, training_documents: Artifact, out: Draft, report: Report
) -> Facts:
    """Count words of at least `min_length` characters."""
    counts: Counter[str] = Counter()
    for batch in training_documents.batches("documents", ["text"]):
        for text in batch.column("text").to_pylist():
            counts.update(word for word in text.split() if len(word) >= config.min_length)
    if not counts:
        raise InputError(str(training_documents), "holds no words", "set a smaller min_length")
    with out.writer("words", 0) as writer:
        writer.write([{"id": word, "count": count} for word, count in sorted(counts.items())])
    return Facts(figures={"words": len(counts)})
'''

CONTRACT = """apiVersion: v3.1.0
kind: DataContract
id: groundup.word_counts
name: word_counts
version: 1.0.0
status: active
domain: language-model
description:
  purpose: How often each word stands in the training documents.
  usage: Written by count_words.
schema:
  - name: words
    physicalName: words/*.parquet
    physicalType: table
    logicalType: object
    description: One row per word.
    properties:
      - name: id
        logicalType: string
        physicalType: string
        required: true
        primaryKey: true
        unique: true
        description: The word.
        logicalTypeOptions:
          minLength: 1
      - name: count
        logicalType: integer
        physicalType: int64
        required: true
        description: How often it stands there.
        logicalTypeOptions:
          minimum: 1
"""

GOLDEN = '''"""Three made-up pages."""

from __future__ import annotations

from typing import Any

from tests.golden import made_up


def inputs(publish: Any) -> dict[str, Any]:
    documents = made_up.documents(0, 3)
    return {"training_documents": publish("training_documents", documents=documents, rejects=[])}


SETTINGS: dict[str, Any] = {"min_length": 3}
BAD: list[tuple[dict[str, Any], str]] = [({"min_length": 100}, "holds no words")]
'''

README = """# count_words

Counts words of at least `min_length` characters.

    groundup stage count_words --name demo
"""

ROW = """\
    Stage("count_words", consumes=(Input("training_documents"),), produces="word_counts"),
"""
LINE = '    run("count_words", training_documents=corpus)\n'
EDGE = "  decontaminate --> count_words\n"
CHECKS = [
    "tests/test_map.py",
    "tests/test_structure.py",
    "tests/stages/test_every_stage.py",
    "tests/data_contracts/test_contract.py",
    "tests/data_contracts/test_docs.py",
    "tests/data_contracts/test_rules.py",
]


@pytest.mark.slow
def test_a_stage_is_added_by_a_folder_a_row_a_contract_a_golden_input_and_a_line(tmp_path: Path):
    copy_repository(tmp_path)
    folder = tmp_path / "stages" / "count_words"
    write(folder / "__init__.py", '"""Counts words."""\n')
    write(folder / "README.md", README)
    write(folder / "config.py", CONFIG)
    write(folder / "stage.py", STAGE)
    write(tmp_path / "data_contracts" / "word_counts" / "v1.yaml", CONTRACT)
    write(tmp_path / "tests" / "golden" / "count_words.py", GOLDEN)
    insert(tmp_path / "stages" / "__init__.py", ROW, before='    Stage(\n        "export_gguf"')
    insert(tmp_path / "flows" / "build_llm.py", LINE, before='    gguf = run("export_gguf"')
    insert(tmp_path / "README.md", EDGE, before="  dedup --> pack\n")

    groundup = "from flows.cli.commands import main; main()"
    python(tmp_path, "-c", groundup, "contracts", "check", "--freeze")
    python(tmp_path, "-c", groundup, "contracts", "docs")
    python(tmp_path, "-c", groundup, "stage", "count_words", "--keys")
    python(tmp_path, "-m", "tests.import_rules")
    selected = "count_words or word_counts or map or diagram or whole_flow or deployment"
    done = python(tmp_path, "-m", "pytest", "-q", "-k", selected, *CHECKS)
    assert "[100%]" in done


def copy_repository(target: Path) -> None:
    for package in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / package, target / package, ignore=ignored)
    for file in FILES:
        shutil.copy(REPOSITORY / file, target / file)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, "utf-8")


def insert(path: Path, text: str, before: str) -> None:
    found = path.read_text("utf-8")
    assert found.count(before) == 1
    path.write_text(found.replace(before, text + before), "utf-8")


def python(folder: Path, *arguments: str) -> str:
    """Standard output of a Python that imports the copy. Fails with all that it said."""
    environment = os.environ | {"PYTHONPATH": str(folder), "GROUNDUP_HOME": str(folder / "home")}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
