"""A file that did not change is not read again, whatever program asks; one that did is."""

from __future__ import annotations

import errno
import os
import re
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from data_contracts import InputError
from stages import file_digests as under_test
from stages.file_digests import file_digests

TEXT = "0" * 9


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    """Files that were hashed, with a memory of their own and files that need not rest."""
    done: list[Path] = []
    hashed = under_test._sha256
    monkeypatch.setattr(
        under_test, "_sha256", lambda path, stop: (done.append(path), hashed(path, stop))[1]
    )
    monkeypatch.setattr(under_test, "MIN_AGE_NS", 0)
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path / "cache"))
    return done


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "a.txt").write_text(TEXT)
    return tmp_path / "a.txt"


def test_a_file_that_did_not_change_is_read_once(read: list[Path], file: Path) -> None:
    assert file_digests([file], "stage.files") == file_digests([file], "stage.files")
    assert read == [file]


@pytest.mark.parametrize(
    "change", ["length", "content under the old time", "another file in its place"]
)
def test_a_file_that_changed_is_read_again(read: list[Path], file: Path, change: str) -> None:
    before, times = file_digests([file], "stage.files"), file.stat()
    time.sleep(0.02)  # or the clock of the file system stands still
    if change == "another file in its place":
        file.rename(file.with_suffix(".old"))
    file.write_text(TEXT + "1" if change == "length" else "1" * 9)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert file_digests([file], "stage.files") != before
    assert read == [file, file]


def test_a_file_that_just_changed_is_not_trusted(
    read: list[Path], file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(under_test, "MIN_AGE_NS", 60 * 10**9)
    assert file_digests([file], "stage.files") == file_digests([file], "stage.files")
    assert read == [file, file]


def test_a_file_that_changes_while_it_is_read_is_not_trusted(
    read: list[Path], file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed = under_test._sha256
    monkeypatch.setattr(
        under_test,
        "_sha256",
        lambda path, stop: (hashed(path, stop), path.write_text(TEXT + "1"))[0],
    )
    before = file_digests([file], "stage.files")
    monkeypatch.setattr(under_test, "_sha256", hashed)
    assert file_digests([file], "stage.files") != before


@pytest.mark.parametrize("state", ["damaged", "no folder"])
def test_without_a_memory_files_are_hashed_all_the_same(
    read: list[Path], file: Path, tmp_path: Path, state: str
) -> None:
    if state == "damaged":
        (tmp_path / "cache").mkdir()
        (tmp_path / "cache" / "sha256.sqlite").write_bytes(b"no database" * 100)
    else:
        (tmp_path / "cache").write_text("a file")
    assert len(file_digests([file], "stage.files")[file]) == 64


def test_what_was_hashed_before_an_error_is_remembered(
    read: list[Path], file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (damaged := file.with_name("b.txt")).write_text(TEXT)
    hashed = under_test._sha256

    def on_a_bad_disk(path: Path, stop: threading.Event) -> str:
        if path == damaged:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return hashed(path, stop)

    monkeypatch.setattr(under_test, "_sha256", on_a_bad_disk)
    with pytest.raises(
        InputError,
        match=rf"stage\.files: {re.escape(str(damaged))}: cannot be read: Input/output error",
    ):
        file_digests([file, damaged], "stage.files")
    with sqlite3.connect(file.parent / "cache" / "sha256.sqlite") as memory:
        assert memory.execute("SELECT path FROM digests").fetchall() == [(os.fsencode(file),)]


def test_what_is_no_file_is_refused_before_any_is_hashed(read: list[Path], file: Path) -> None:
    (folder := file.with_name("b")).mkdir()
    with pytest.raises(
        InputError, match=rf"stage\.files: {re.escape(str(folder))}: cannot be read: Is a directory"
    ):
        file_digests([file, folder], "stage.files")
    assert read == []
