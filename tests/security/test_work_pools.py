"""Whatever becomes of a work pool, a run takes no command from a request, and `up` restores it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect.workers.process import ProcessWorker

from flows.home import Home
from flows.prefect_host import processes
from flows.prefect_host.job_template import CLOSED
from tests.flows.conftest import Groundup, free_port
from tests.security.interrupted import wait_until

pytestmark = pytest.mark.slow
POOL = "/work_pools/groundup"
ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


@pytest.fixture
def groundup(tmp_path: Path) -> Iterator[Groundup]:
    new = Groundup(tmp_path / "home", free_port(), tmp_path)
    try:
        new.run("up")
        yield new
    finally:
        new.run("down", check=False)


def start(groundup: Groundup, **job_variables: Any) -> str:
    identity = groundup.deployment("rerun")["id"]
    body = {"job_variables": job_variables, "parameters": {"name": "none", "stage": "clean"}}
    return groundup.api(f"/deployments/{identity}/create_flow_run", **body)["id"]


def end_of(groundup: Groundup, run: str) -> str:
    """Wait for the end of a run and return the type of its state: FAILED if our flow ran."""
    wait_until(lambda: groundup.api(f"/flow_runs/{run}")["state_type"] in ENDED)
    return groundup.api(f"/flow_runs/{run}")["state_type"]


@pytest.mark.parametrize("template", [{}, ProcessWorker.get_default_base_job_template()])
def test_a_worker_takes_no_command_from_a_pool_that_was_emptied_or_opened(
    template: dict[str, Any], groundup: Groundup
) -> None:
    marker = groundup.folder / "marker"
    groundup.api(POOL, "PATCH", base_job_template=template)
    hostile = {"command": f"sh -c 'touch {marker}'", "env": {"PATH": "/nowhere"}}
    assert end_of(groundup, start(groundup, **hostile)) == "FAILED", "by our own flow"
    assert not marker.exists()

    done = groundup.run("up")
    assert "work pool groundup: " in done.stdout
    assert "requests choose no command, working_dir or env now" in done.stdout
    found = groundup.api(POOL)["base_job_template"]
    chosen = found["variables"]["properties"].keys() | found["job_configuration"].keys()
    assert not CLOSED & chosen
    assert "work pool" not in groundup.run("up").stdout, "said once"


def test_up_lets_a_pool_that_was_paused_or_limited_to_nothing_start_runs(
    groundup: Groundup,
) -> None:
    queue = groundup.api(POOL)["default_queue_id"]
    groundup.api(POOL, "PATCH", is_paused=True, concurrency_limit=0)
    groundup.api(f"/work_queues/{queue}", "PATCH", is_paused=True)
    output = groundup.run("up").stdout
    assert "work pool groundup: it was paused, and starts runs again" in output
    assert "work pool groundup: it allowed no run at a time" in output
    assert "work queue default of groundup: it was paused" in output
    assert end_of(groundup, start(groundup)) == "FAILED", "by our own flow"


@pytest.mark.parametrize("is_replaced", [False, True])
def test_up_makes_a_pool_again_that_was_deleted_or_has_another_type(
    is_replaced: bool, groundup: Groundup
) -> None:
    marker = groundup.folder / "marker"
    processes.stop(Home(groundup.home), "worker")  # it would make the pool again
    groundup.api(POOL, "DELETE")
    if is_replaced:
        groundup.api("/work_pools/", name="groundup", type="docker", base_job_template={})
    output = groundup.run("up").stdout
    said = "it had the type docker, and was made again" if is_replaced else "it was gone"
    assert f"work pool groundup: {said}" in output
    assert groundup.api(POOL)["type"] == "process"
    hostile = {"command": f"sh -c 'touch {marker}'"}
    with pytest.raises(httpx.HTTPStatusError, match=r"'4(09|22) "):
        start(groundup, **hostile)
    assert end_of(groundup, start(groundup)) == "FAILED", "by our own flow"
    assert not marker.exists()
