"""Sets up a Prefect server: the work pool and its deployments.

The deployments are those of infra/prefect.yaml, and one per stage.

`prefect deploy` would reset what a person has changed in the UI: schedules, pauses, default
parameters. Here a deployment is created once. Afterwards only the fields that the code determines
are updated. Import this module after PREFECT_API_URL is chosen.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from importlib import import_module
from typing import Any

import httpx
import psutil
import yaml
from prefect import Flow, get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate, DeploymentUpdate
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed
from prefect.utilities.callables import parameter_schema

from data_contracts import GroundupError
from flows import stage_flows
from flows.cli.console import out
from flows.prefect_host import work_pools
from flows.prefect_host.processes import REPOSITORY
from flows.prefect_host.work_pool import POOL, WORKER

DECLARATIONS = REPOSITORY / "infra" / "prefect.yaml"
LOST_RUN = "Its process ended without reporting a state."
SET_WORKING_DIRECTORY = "prefect.deployments.steps.set_working_directory"


def deploy(whole_server: bool) -> None:
    """Create the work pool and the deployments that are missing, and update what the code defines.

    Args:
        whole_server: Whether the server is ours, so that no work pool on it may take commands from
            requests. Otherwise only our own work pool is restricted.
    """
    with _client() as client:
        for line in work_pools.restore(client, whole_server):
            out.print(line, markup=False)
        for declared, flow in _declarations():
            _create_or_update(client, declared, flow)


def _create_or_update(
    client: SyncPrefectClient, declared: dict[str, Any], flow: Flow[..., Any]
) -> None:
    wanted = _fields_from_code(declared, flow)
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
        return
    if any(getattr(found, field) != value for field, value in wanted.items()):
        client.update_deployment(found.id, DeploymentUpdate(**wanted))


def _fields_from_code(declared: dict[str, Any], flow: Flow[..., Any]) -> dict[str, Any]:
    schema = parameter_schema(flow).model_dump(mode="json", exclude_unset=True)
    return {
        "entrypoint": declared["entrypoint"],
        "parameter_openapi_schema": schema,
        "pull_steps": [{SET_WORKING_DIRECTORY: {"directory": str(REPOSITORY)}}],
        "work_pool_name": POOL,
    }


def mark_lost_runs_crashed() -> None:
    """Set the flow runs whose process was killed, or died with the power, to Crashed.

    Prefect still counts them as running. Call this only while neither a worker nor a run from the
    shell is alive. The run of a killed worker may have outlived it; then nothing is changed.
    """
    unfinished = FlowRunFilterStateType(
        any_=[StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
    )
    flow_names = [flow.name for _, flow in _declarations()]
    with _client() as client:
        runs = client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=flow_names)),
            flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=unfinished)),
        )
        if any(_is_alive(run.infrastructure_pid) for run in runs):
            return
        for run in runs:
            client.set_flow_run_state(run.id, Crashed(message=LOST_RUN), force=True)


def last_heartbeat() -> datetime | None:
    """Return when the server last had a heartbeat of our worker."""
    with _client() as client:
        for worker in client.read_workers_for_work_pool(POOL):
            if worker.name == WORKER:
                return worker.last_heartbeat_time
    return None


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


def _declarations() -> Iterator[tuple[dict[str, Any], Flow[..., Any]]]:
    """Yield each deployment of infra/prefect.yaml with its flow, then one for each stage."""
    for declared in yaml.safe_load(DECLARATIONS.read_text("utf-8"))["deployments"]:
        file, name = declared["entrypoint"].split(":")
        module = import_module(file.removesuffix(".py").replace("/", "."))
        yield declared, getattr(module, name)
    flows: dict[str, Any] = dict(stage_flows.FLOWS)
    for stage, flow in flows.items():
        yield {"name": flow.name, "entrypoint": f"flows/stage_flows.py:{stage}"}, flow


def _schedule(cron: str, timezone: str, active: bool) -> DeploymentScheduleCreate:
    schedule = CronSchedule(cron=cron, timezone=timezone)
    return DeploymentScheduleCreate(schedule=schedule, active=active)


def _is_alive(infrastructure_pid: str | None) -> bool:
    """Return whether the process in which a worker started a run is alive.

    The command line distinguishes it from another process that has got its id since.

    Args:
        infrastructure_pid: "host:pid", as Prefect records it.
    """
    if infrastructure_pid is None:
        return False
    try:
        process = psutil.Process(int(infrastructure_pid.split(":")[-1]))
        return any("prefect" in argument for argument in process.cmdline())
    except psutil.Error:
        return False
