"""A path in a setting is read if it is a plain file; a pipe or a device is an error at once."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import stages
from data_contracts import ConfigError, GroundupError, InputError
from data_contracts.json_files import read_json
from data_contracts.regular_files import check_regular, open_regular
from data_contracts.tensor_files import gguf_header, safetensors_header
from flows import recipe, recipe_file
from flows.cli import talk
from stages.collect_chats.questions import Questions
from stages.file_digests import file_digests
from stages.user_files import read_rows


def pipe(path: Path) -> None:
    os.mkfifo(path)


def listening(path: Path) -> None:
    socket.socket(socket.AF_UNIX).bind(os.path.relpath(path))


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


NEVER_END = {"a pipe": pipe, "a socket": listening, "a device": endless}

SETTINGS: dict[str, tuple[str, Callable[[str], dict[str, Any]]]] = {
    "collect_chats.files": ("x.jsonl", lambda path: {"files": [path]}),
    "collect_chats.files of Parquet": ("x.parquet", lambda path: {"files": [path]}),
    "collect_chats.questions": ("x.yaml", lambda path: {"questions": path}),
    "collect_preferences.files": ("x.jsonl", lambda path: {"files": [path]}),
    "collect_evals.benchmarks": ("x.jsonl", lambda path: {"benchmarks": [path]}),
    "evaluate.tasks": ("x.yaml", lambda path: {"tasks": [path]}),
    "evaluate.tasks with code": ("x.yaml", lambda path: {"tasks": [path], "allow_code": True}),
    "clean.language": ("x.ftz", lambda path: {"language": {"model": path}}),
    "crawl.sources": ("x.txt", lambda path: {"sources": [{"kind": "files", "paths": [path]}]}),
    "crawl.sources of a data set": (
        "x.jsonl",
        lambda path: {"sources": [{"kind": "dataset", "dataset": "json", "data_files": [path]}]},
    ),
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", NEVER_END)
@pytest.mark.parametrize("setting", SETTINGS)
def test_a_setting_that_names_what_never_ends_is_one_error_at_once(
    tmp_path, monkeypatch, setting, kind
):
    monkeypatch.chdir(tmp_path)
    name, settings = SETTINGS[setting]
    NEVER_END[kind](tmp_path / name)
    stage = setting.partition(".")[0]
    config = stages.stage(stage).config_class.parse(settings(str(tmp_path / name)), stage)
    with pytest.raises((InputError, ConfigError)) as error:
        config.identity()
    assert name in str(error.value)
    if stage != "clean":  # says that there is no model
        assert f"it is {kind}, not a plain file" in str(error.value)


READERS: dict[str, Callable[[Path], object]] = {
    "rows": lambda path: list(read_rows(f"{path}.jsonl")),
    "rows of Parquet": lambda path: list(read_rows(f"{path}.parquet")),
    "forms of questions": lambda path: Questions.load(path, 0),
    "a recipe": lambda path: recipe_file.read(path),
    "a recipe by its path": lambda path: recipe.load(str(path)),
    "a GGUF": lambda path: gguf_header(path),
    "a GGUF to talk to": lambda path: talk.find(None, f"{path}.gguf"),  # type: ignore[arg-type]
    "tensors": lambda path: safetensors_header(path),
    "JSON": lambda path: read_json(path),
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", NEVER_END)
@pytest.mark.parametrize("reader", READERS)
def test_no_reader_waits_for_what_never_ends(tmp_path, monkeypatch, reader, kind):
    monkeypatch.chdir(tmp_path)
    for suffix in ("", ".jsonl", ".parquet", ".gguf"):
        NEVER_END[kind](tmp_path / f"x{suffix}")
    with pytest.raises((GroundupError, OSError, ValueError)):
        READERS[reader](tmp_path / "x")


REPAIRS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a pipe": (pipe, "write what it gives into a plain file, and name that file"),
    "a device": (endless, "write what it gives into a plain file, and name that file"),
    "a folder": (Path.mkdir, "name the files in that folder"),
    "nothing": (lambda path: None, "put the file there"),
}


@pytest.mark.parametrize("kind", REPAIRS)
def test_the_advice_fits_what_a_path_leads_to(tmp_path, kind):
    make, advice = REPAIRS[kind]
    make(tmp_path / "x.jsonl")
    with pytest.raises(InputError) as error:
        file_digests([tmp_path / "x.jsonl"], "collect_chats.files")
    assert error.value.fix == f"{advice}, or correct collect_chats.files"
    with pytest.raises(InputError) as error:
        list(read_rows(str(tmp_path / "x.jsonl")))
    assert error.value.fix.startswith(advice)
    assert "readable" not in error.value.fix


def test_a_file_and_a_link_to_one_are_read(tmp_path):
    (tmp_path / "a").write_bytes(b"text")
    (tmp_path / "link").symlink_to("a")
    for name in ("a", "link"):
        with open_regular(tmp_path / name) as file:
            assert file.read() == b"text"


def test_a_pipe_that_takes_the_place_of_a_file_is_not_waited_for(tmp_path, monkeypatch):
    pipe(tmp_path / "x")
    with pytest.raises(OSError, match="it is a pipe"):
        check_regular(tmp_path / "x")
    monkeypatch.setattr("data_contracts.regular_files.check_regular", lambda path: None)
    with pytest.raises(OSError, match="it is a pipe"):
        open_regular(tmp_path / "x")


DIGEST = """
import signal
import sys
from pathlib import Path
from stages.file_digests import file_digests
# A script that runs the tests in the background ignores the signal.
signal.signal(signal.SIGINT, signal.default_int_handler)
print("begun", flush=True)
file_digests([Path(sys.argv[1])], "stage.files")
"""


@pytest.mark.parametrize("number", [signal.SIGINT])
def test_a_file_that_takes_minutes_to_hash_keeps_no_signal_waiting(tmp_path, number):
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(1 << 40)  # a hole: a terabyte that takes no disk space
    environment = os.environ | {"GROUNDUP_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-c", DIGEST, str(large)]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.5)
        process.send_signal(number)
        try:
            process.wait(300)  # hashing all of it would take a quarter of an hour
        finally:
            process.kill()
    assert file_digests([], "stage.files") == {}
