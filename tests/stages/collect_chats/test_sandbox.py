from __future__ import annotations

import time

import pytest

from stages.collect_chats.sandbox import missing, run_sessions

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())


def error(*statements, seconds=5.0):
    return run_sessions([statements], seconds)[0].error


def test_the_last_statement_is_what_counts():
    outcomes = run_sessions(
        [["1 + 1\n"], ["x = 3\n", "print(x)\n"], ["for n in range(2):\n    print(n)\n"]], 5
    )
    assert [outcome.output for outcome in outcomes] == ["2\n", "3\n", "0\n1\n"]


def test_nothing_can_be_written_or_removed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("here")
    assert "PermissionError" in error(f"open({str(victim)!r}, 'w')\n")
    assert "PermissionError" in error("import os\n", f"os.remove({str(victim)!r})\n")
    assert "Permission" in error("import os\n", f"os.mkfifo({str(tmp_path / 'pipe')!r})\n")
    assert "PermissionError" in error("import io\n", f"io.FileIO({str(victim)!r}, 'a')\n")
    assert [path.name for path in tmp_path.iterdir()] == ["victim"]
    assert victim.read_text() == "here"


@pytest.mark.slow
def test_a_session_that_does_not_end_is_stopped_and_the_next_still_runs():
    start = time.monotonic()
    outcomes = run_sessions([["while True: pass\n\n"], ["7\n"]], 0.5)
    assert outcomes[0].error == "ran longer than 0.5 seconds"
    assert outcomes[1].output == "7\n"
    assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    ("statements", "message"),
    [
        (["x = 'a' * 10**11\n"], "MemoryError"),
        (["import subprocess\n", "subprocess.run(['true'])\n"], "PermissionError"),
        (["import os\n", "os.fork()\n"], "PermissionError"),
        (["import os\n", "os._exit(0)\n"], "was killed"),
        (["import socket\n", "socket.create_connection(('127.0.0.1', 9))\n"], "PermissionError"),
        (["import torch\n"], "ModuleNotFoundError"),
        (["raise SystemExit\n"], "SystemExit"),
        (["print('x' * 200_000)\n"], "printed 200001 characters"),
    ],
)
def test_what_is_not_allowed_ends_that_session(statements, message):
    assert message in error(*statements)


def test_one_session_leaves_no_trace_in_the_next():
    outcomes = run_sessions(
        [
            ["import decimal\n", "decimal.getcontext().prec = 2\n"],
            ["import decimal\n", "decimal.getcontext().prec\n"],
        ],
        5,
    )
    assert outcomes[1].output == "28\n"


def test_a_set_prints_the_same_in_every_run():
    assert len({run_sessions([["set('abcdefgh')\n"]], 5)[0].output for _ in range(3)}) == 1
