"""Data sets of Hugging Face `datasets` as sources."""

from __future__ import annotations

import json
from typing import ClassVar

import pytest

import stages
from data_contracts import ArtifactError, InputError
from stages.report import Report
from stages.run import run_stage


def identity(**source):
    return stages.stage("crawl").config_class.parse({"sources": [source]}, "crawl").identity()


@pytest.mark.parametrize(
    "source",
    [
        {"kind": "files", "paths": ["~nobody-i-know/x"]},
        {"kind": "dataset", "dataset": "~nobody-i-know/x"},
    ],
)
def test_the_home_of_an_unknown_user_is_no_such_file(source):
    with pytest.raises(InputError, match=r"~nobody-i-know/x: there is no such file"):
        identity(**source)


@pytest.mark.parametrize(
    "source",
    [
        {"dataset": "json", "data_files": ["in/*.jsonl"]},
        {"dataset": "json", "data_files": ["~/in/rows.jsonl"]},
        {"dataset": "./in"},
        {"dataset": "in"},
        {"dataset": "~/in", "data_files": ["*.jsonl"]},
        {
            "dataset": "somebody/something",
            "data_files": ["~/in/*.jsonl", "data/of-the-hub.jsonl", "https://example.org/x.jsonl"],
        },
    ],
)
def test_changed_files_of_a_data_set_make_another_artifact(folder, monkeypatch, source):
    monkeypatch.chdir(folder.parent)
    monkeypatch.setenv("HOME", str(folder.parent))
    (folder / "rows.jsonl").write_text("one")
    one = identity(kind="dataset", **source)
    (folder / "rows.jsonl").write_text("other")
    other = identity(kind="dataset", **source)
    assert [len(found["sources"][0]["sha256"]) for found in (one, other)] == [1, 1]
    assert one != other


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            {"dataset": "json", "data_files": ["nowhere/*.jsonl"]},
            r"nowhere/\*\.jsonl: there is no such file",
        ),
        (
            {"dataset": "somebody/something", "data_files": ["/nowhere/*.jsonl"]},
            r"/nowhere/\*\.jsonl: there is no such file",
        ),
        ({"dataset": "./nowhere"}, r"/nowhere: there is no such file"),
    ],
)
def test_a_data_set_that_is_to_be_local_and_is_not_there_is_named(source, message):
    with pytest.raises(InputError, match=message):
        identity(kind="dataset", **source)


@pytest.mark.slow  # importing datasets takes seconds
def test_an_error_of_writing_is_not_told_as_one_of_the_data_set(run, folder, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    (folder / "rows.jsonl").write_text('{"text": "row"}')
    monkeypatch.setattr("stages.crawl.rows.Rows.document", full)
    with pytest.raises(ArtifactError, match="the disk is full"):
        run("crawl", {"sources": [{"kind": "dataset", "dataset": str(folder)}]})


@pytest.mark.slow  # importing datasets takes seconds
def test_progress_through_a_data_set_is_told_of_the_limit(store, folder):
    class RecordingReport(Report):
        calls: ClassVar[list[tuple[float, float | None, str]]] = []

        def progress(self, done, total, unit):
            self.calls.append((done, total, unit))

    (folder / "rows.jsonl").write_text(
        "\n".join(json.dumps({"text": f"row {n}"}) for n in range(9))
    )
    source = {
        "kind": "dataset",
        "dataset": "json",
        "data_files": [str(folder / "rows.jsonl")],
        "limits": {"max_documents": 3},
    }
    row = stages.stage("crawl")
    run_stage(
        store, row, row.config_class.parse({"sources": [source]}, "crawl"), {}, RecordingReport()
    )
    assert RecordingReport.calls == [(1, 3, "rows"), (2, 3, "rows"), (3, 3, "rows")]


@pytest.mark.slow  # importing datasets takes seconds
def test_rows_of_a_data_set_are_streamed_up_to_the_limit(run, folder):
    (folder / "rows.jsonl").write_text(
        "\n".join(json.dumps({"content": f"row {n}"}) for n in range(50))
    )
    source = {
        "kind": "dataset",
        "dataset": "json",
        "data_files": [str(folder / "rows.jsonl")],
        "text_field": "content",
        "limits": {"max_documents": 7},
    }
    artifact = run("crawl", {"sources": [source]})
    assert [row["body"] for row in artifact.read("documents").to_pylist()] == [
        f"row {n}".encode() for n in range(7)
    ]
    assert "limit of 7 rows" in artifact.manifest.facts["notes"][0]
    with pytest.raises(InputError, match=r"has no column 'text'(?s:.)*content"):
        run("crawl", {"sources": [source | {"text_field": "text"}]})
    (folder / "rows.jsonl").write_text("{broken")
    with pytest.raises(InputError, match="cannot be read at row 1"):
        run("crawl", {"sources": [source]})
    (folder / "rows.jsonl").write_text('{"content": "row of a folder"}')
    artifact = run("crawl", {"sources": [source | {"dataset": str(folder), "data_files": []}]})
    assert artifact.read("documents", ["url"]).column(0).to_pylist() == [
        f"{folder.as_uri()}/default/train#1"
    ]
