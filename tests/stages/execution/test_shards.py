"""Work that is spread over processes: order, errors, deaths, and how many processes there are."""

from __future__ import annotations

import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_contracts import GroundupError
from stages.execution.cores import cpu_quota
from stages.execution.processes import AHEAD, local
from stages.execution.shards import map_shards


def later_the_sooner(shard: int) -> int:
    time.sleep(0.02 * (8 - shard))
    return shard


def refuse_the_first(shard: tuple[Path, int]) -> int:
    folder, number = shard
    (folder / str(number)).touch()
    if number == 0:
        raise GroundupError("shard 0", "is refused", "leave it out")
    time.sleep(1)
    return number


def die_at_one(shard: int) -> int:
    if shard == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return shard


def announce_and_stay(folder: str) -> None:
    Path(folder, str(os.getpid())).touch()
    time.sleep(60)


@pytest.mark.slow
def test_results_come_in_the_order_of_the_shards() -> None:
    assert list(map_shards(later_the_sooner, range(8), local(3))) == list(range(8))


@pytest.mark.slow
def test_shards_are_drawn_only_a_few_ahead() -> None:
    drawn = []

    def shards() -> Iterator[int]:
        for number in range(20):
            drawn.append(number)
            yield number

    results = map_shards(later_the_sooner, (min(number, 8) for number in shards()), local(2))
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert len(drawn) == 2 * AHEAD


@pytest.mark.slow
def test_an_error_is_raised_as_it_is_and_shards_that_wait_are_not_begun(tmp_path: Path) -> None:
    with pytest.raises(GroundupError, match="shard 0: is refused"):
        list(map_shards(refuse_the_first, [(tmp_path, number) for number in range(4)], local(2)))
    assert not (tmp_path / "3").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "shards", [2, 500], ids=["while results are awaited", "while shards are handed out"]
)
def test_the_death_of_a_worker_is_one_error(shards: int) -> None:
    with pytest.raises(
        GroundupError,
        match=r"a worker process, near shard [0-9]+: was killed, most often for want of memory",
    ):
        list(map_shards(die_at_one, range(shards), local(2)))


UNABLE = {
    "there is no interpreter": "multiprocessing.set_executable('/nowhere/python')",
    "the interpreter ends at once": "multiprocessing.set_executable('/bin/false')",
    "there is no folder for sockets": "tempfile.tempdir = '/nowhere'",
}


@pytest.mark.parametrize("why", UNABLE)
def test_workers_that_cannot_start_are_one_line(why: str) -> None:
    program = f"""
import multiprocessing, sys, tempfile
from data_contracts import GroundupError
from stages.execution.processes import local
from stages.execution.shards import map_shards
{UNABLE[why]}
try:
    list(map_shards(abs, range(5), local(2)))
except GroundupError as error:
    print(error.what, error.why, sep=": ")
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=300
    )
    assert re.fullmatch(r"the worker processes: cannot start: [a-z][^\n]+\n", ended.stdout)
    assert ended.stderr == ""


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_the_process_that_started_them(
    tmp_path: Path, how: signal.Signals
) -> None:
    code = (
        "from stages.execution.processes import local\n"
        "from stages.execution.shards import map_shards\n"
        "from tests.stages.execution.test_shards import announce_and_stay\n"
        f"list(map_shards(announce_and_stay, [{str(tmp_path)!r}] * 2, local(2)))"
    )
    parent = subprocess.Popen([sys.executable, "-c", code])
    while len(workers := [int(file.name) for file in tmp_path.iterdir()]) < 2:
        time.sleep(0.05)
    parent.send_signal(how)
    parent.wait()
    give_up = time.monotonic() + 120
    while any(map(_alive, workers)):
        assert time.monotonic() < give_up
        time.sleep(0.05)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"": None, "a": "max 100000", "a/b": "max 100000"}, math.inf),
        ({"": None, "a": "max 100000", "a/b": "200000 100000"}, 2),
        ({"": None, "a": "150000 100000", "a/b": "200000 100000"}, 1.5),
        ({"": "50000 100000"}, 0.5),  # a container: its own group is the root that it sees
    ],
)
def test_the_least_quota_on_the_way_to_the_root_counts(
    tmp_path: Path, limits: dict[str, str | None], expected: float
) -> None:
    for group, limit in limits.items():
        (tmp_path / "root" / group).mkdir(parents=True)
        if limit:
            (tmp_path / "root" / group / "cpu.max").write_text(limit + "\n")
    memberships = tmp_path / "cgroup"
    memberships.write_text(f"3:cpu:/other\n0::/{max(limits)}\n")
    assert cpu_quota(memberships, tmp_path / "root") == expected


def test_without_control_groups_there_is_no_quota(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path / "none", tmp_path) == math.inf
