"""What `groundup up` sets up on a Prefect server: the work pool, and the deployments that infra/prefect.yaml declares.

`prefect deploy` would set back what a person has changed in the UI: schedules, pauses, default parameters. Here a deployment
is made once; afterwards only what the code determines is kept up to date. To be imported once PREFECT_API_URL is chosen.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from importlib import import_module
from typing import Any

import httpx
import psutil
import yaml
from prefect import Flow, get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import (
    DeploymentScheduleCreate,
    DeploymentUpdate,
    WorkPoolCreate,
    WorkPoolUpdate,
)
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType, WorkPool
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.states import Crashed
from prefect.utilities.callables import parameter_schema
from prefect.workers.process import ProcessWorker

from data_contracts import GroundupError
from flows.cli.console import out
from flows.prefect_host.job_template import closed
from flows.prefect_host.processes import REPOSITORY
from flows.prefect_host.server import POOL, WORKER

PAGE = 200  # the most that Prefect's API gives at once


def deploy(whole_server: bool) -> None:
    """Make what is missing of the work pool and the deployments, and tell the server what the code has changed.

    whole_server: the server is ours, so no pool on it may take commands from requests; else only our own pool.
    """
    with _client() as client:
        template = closed(ProcessWorker.get_default_base_job_template())
        with suppress(ObjectAlreadyExists):
            new = WorkPoolCreate(name=POOL, type="process", base_job_template=template)
            client.create_work_pool(new)
        _close_pools(client, whole_server)
        for declared, flow in _declared():
            wanted = {
                "entrypoint": declared["entrypoint"],
                "parameter_openapi_schema": parameter_schema(flow).model_dump(
                    mode="json", exclude_unset=True
                ),
                "pull_steps": [
                    {
                        "prefect.deployments.steps.set_working_directory": {
                            "directory": str(REPOSITORY)
                        }
                    }
                ],
                "work_pool_name": POOL,
            }
            try:
                found = client.read_deployment_by_name(f"{flow.name}/{declared['name']}")
            except ObjectNotFound:
                client.create_deployment(
                    client.create_flow(flow),
                    declared["name"],
                    description=declared.get("description") or flow.description,
                    schedules=[_schedule(**schedule) for schedule in declared.get("schedules", ())],
                    enforce_parameter_schema=True,
                    **wanted,
                )
            else:
                if any(getattr(found, field) != value for field, value in wanted.items()):
                    client.update_deployment(found.id, DeploymentUpdate(**wanted))


def _close_pools(client: SyncPrefectClient, whole_server: bool) -> None:
    """Pools that exist take no command, working directory or environment any more, and that is said."""
    for pool in _work_pools(client) if whole_server else [client.read_work_pool(POOL)]:
        if (
            not pool.base_job_template
        ):  # of a pool that runs nothing; a worker would fill it in at its start
            continue
        template = closed(pool.base_job_template)
        if template != pool.base_job_template:
            client.update_work_pool(pool.name, WorkPoolUpdate(base_job_template=template))
            closed_now = (
                f"work pool {pool.name}: requests choose no command, working_dir or env now"
            )
            out.print(closed_now, markup=False)


def _work_pools(client: SyncPrefectClient) -> Iterator[WorkPool]:
    offset = 0
    while page := client.read_work_pools(limit=PAGE, offset=offset):
        yield from page
        offset += len(page)


def tell_lost_runs() -> None:
    """Runs whose process was killed, or went with the power, still count as running: set them to Crashed.

    To be called only while neither a worker nor a run from the shell is alive. The run of a worker that was killed may have
    outlived it; then nothing is touched.
    """
    unfinished = FlowRunFilterStateType(
        any_=[StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
    )
    ours = FlowFilter(name=FlowFilterName(any_=[flow.name for _, flow in _declared()]))
    with _client() as client:
        runs = client.read_flow_runs(
            flow_filter=ours,
            flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=unfinished)),
        )
        if not any(_lives(run.infrastructure_pid) for run in runs):
            for run in runs:
                client.set_flow_run_state(
                    run.id, Crashed(message="Its process ended without a word."), force=True
                )


def last_heartbeat() -> datetime | None:
    """When the server last heard of our worker."""
    with _client() as client:
        return next(
            (
                worker.last_heartbeat_time
                for worker in client.read_workers_for_work_pool(POOL)
                if worker.name == WORKER
            ),
            None,
        )


@contextmanager
def _client() -> Iterator[SyncPrefectClient]:
    try:
        with get_client(sync_client=True) as client:
            yield client
    except httpx.HTTPError as error:
        raise GroundupError(
            f"the Prefect server at {os.environ['PREFECT_API_URL']}",
            f"refused: {error}",
            "see what its log says, then groundup up",
        ) from error


def _declared() -> Iterator[tuple[dict[str, Any], Flow[..., Any]]]:
    """Each deployment as it is declared, and its flow."""
    for declared in yaml.safe_load((REPOSITORY / "infra" / "prefect.yaml").read_text("utf-8"))[
        "deployments"
    ]:
        file, name = declared["entrypoint"].split(":")
        yield declared, getattr(import_module(file.removesuffix(".py").replace("/", ".")), name)


def _schedule(cron: str, timezone: str, active: bool) -> DeploymentScheduleCreate:
    return DeploymentScheduleCreate(
        schedule=CronSchedule(cron=cron, timezone=timezone), active=active
    )


def _lives(identity: str | None) -> bool:
    """Is the process alive in which a worker started a run? Another that got its number since is told by its command line."""
    try:
        return identity is not None and any(
            "prefect" in word for word in psutil.Process(int(identity.split(":")[-1])).cmdline()
        )
    except psutil.Error:
        return False
