"""The work pools of a server: ours fits the worker, and none takes commands from requests.

Whoever may use the server can pause a pool, empty its template or delete it, by mistake, too. Each
`groundup up` restores ours and says so. The worker heeds no template that lets a request choose a
command (prefect_worker.py), so nothing depends on when that happens.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.objects import WorkPool
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.workers.process import ProcessWorker

from flows.prefect_host.job_template import closed
from flows.prefect_host.work_pool import POOL

PAGE_SIZE = 200  # the most that Prefect's API returns at once
CLOSED_NOW = "requests choose no command, working_dir or env now"


def restore(client: SyncPrefectClient, whole_server: bool) -> list[str]:
    """Create our work pool or restore it, and close the pools to commands of requests.

    Args:
        client: A client of the server.
        whole_server: Whether the server is ours, so that no work pool on it may take commands from
            requests. Otherwise only our own work pool is restricted.

    Returns:
        A line for people about each change of a pool that was there.
    """
    lines = _with_our_type(client)
    lines += _running_again(client)
    pools = _work_pools(client) if whole_server else [client.read_work_pool(POOL)]
    for pool in pools:
        lines += _closed(client, pool)
    return lines


def _with_our_type(client: SyncPrefectClient) -> list[str]:
    """Make sure that our pool exists and has the type of our worker."""
    try:
        found = client.read_work_pool(POOL)
    except ObjectNotFound:
        had_deployments = bool(client.read_deployments(limit=1))
        _create(client)
        return [f"work pool {POOL}: it was gone, and is there again"] if had_deployments else []
    if found.type == ProcessWorker.type:
        return []
    client.delete_work_pool(POOL)
    _create(client)
    return [
        f"work pool {POOL}: it had the type {found.type}, and was made again with the type "
        f"{ProcessWorker.type}; start anew what was scheduled in it"
    ]


def _create(client: SyncPrefectClient) -> None:
    new = WorkPoolCreate(name=POOL, type=ProcessWorker.type, base_job_template=_default())
    with suppress(ObjectAlreadyExists):  # a worker was faster
        client.create_work_pool(new)


def _running_again(client: SyncPrefectClient) -> list[str]:
    """Let our pool and its default queue start runs if they were paused or allow none at once."""
    pool = client.read_work_pool(POOL)
    lines = []
    if pool.is_paused:
        client.update_work_pool(POOL, WorkPoolUpdate(is_paused=False))
        lines.append(f"work pool {POOL}: it was paused, and starts runs again")
    if pool.concurrency_limit == 0:
        client.update_work_pool(POOL, WorkPoolUpdate(concurrency_limit=None))
        lines.append(f"work pool {POOL}: it allowed no run at a time, and has no limit now")
    for queue in client.read_work_queues(work_pool_name=POOL):
        starts_none = queue.is_paused or queue.concurrency_limit == 0
        if queue.id == pool.default_queue_id and starts_none:
            client.update_work_queue(queue.id, is_paused=False, concurrency_limit=None)
            lines.append(f"work queue {queue.name} of {POOL}: it was paused, and starts runs again")
    return lines


def _closed(client: SyncPrefectClient, pool: WorkPool) -> list[str]:
    template = pool.base_job_template
    if template:
        wanted, line = closed(template), CLOSED_NOW
    elif pool.type == ProcessWorker.type:
        wanted, line = _default(), f"it had no template, and has one again; {CLOSED_NOW}"
    else:
        return []  # it runs nothing
    if wanted == template:
        return []
    client.update_work_pool(pool.name, WorkPoolUpdate(base_job_template=wanted))
    return [f"work pool {pool.name}: {line}"]


def _default() -> dict[str, Any]:
    return closed(ProcessWorker.get_default_base_job_template())


def _work_pools(client: SyncPrefectClient) -> Iterator[WorkPool]:
    offset = 0
    while True:
        page = client.read_work_pools(limit=PAGE_SIZE, offset=offset)
        if not page:
            return
        yield from page
        offset += len(page)
