"""The page of a flow run in the Prefect UI: progress, then figures, pictures and lineage.

A page shows what is available. No run stops because its page cannot be drawn: the results are in
the store, or the work goes on. Prefect renders Markdown (with mermaid) and images. Pictures are
data: URIs, because Prefect drops raw SVG.
"""

from __future__ import annotations

import base64
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from http import HTTPStatus
from operator import itemgetter
from typing import Any
from uuid import UUID

import httpx
from prefect.artifacts import create_image_artifact, create_markdown_artifact
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.logging import get_run_logger
from prefect.runtime import flow_run

from data_contracts import Artifact, Store
from data_contracts.credentials import masked
from data_contracts.foreign_text import shown
from flows import lineage
from flows.cli import console
from stages.report import Report
from stages.reporting import pictures
from stages.reporting.markdown import plain, quotation, table

# The page is refreshed every EVERY_S seconds at first, later after this share of the elapsed time:
# Prefect keeps every refresh, with its content, as an event.
EVERY_S = 2.0
SHARE = 0.005
PICTURE_EVERY = 10  # refreshes
MAX_BYTES = 900_000  # Prefect refuses events of more than 1.5 MB
MAX_SAMPLES = 5

# (flow run, kind) → the Prefect artifact on its page. The page of a whole run has one progress bar
# for all its stages.
_shown: dict[tuple[UUID, str], UUID] = {}
# The flow run of a whole run. Without it each stage would have to ask Prefect for it.
_whole: ContextVar[UUID | None] = ContextVar("whole", default=None)

Progress = tuple[float, float | None, str]  # done, total, unit


def whole() -> None:
    """Show the progress of the stages on the page of the current flow run, too."""
    _whole.set(UUID(flow_run.id))


class PageReport(Report):
    """A report whose progress a thread sends to the UI, so that no stage waits for the server.

    While the server does not answer, the page is out of date. One warning in the log says so.
    """

    def __init__(self, stage: str):
        self._stage = stage
        self._log = get_run_logger()
        self._run = UUID(flow_run.id)
        self._whole = _whole.get() or self._run
        self._progress: Progress | None = None
        self._sent: Progress | None = None
        self._metrics: list[dict[str, Any]] = []
        self._drawn = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._post, name=f"page of {stage}", daemon=True)

    def progress(self, done: float, total: float | None, unit: str) -> None:
        self._progress = (done, total, unit)

    def metrics(self, step: int, **values: float | None) -> None:
        self._metrics.append({"step": step, **values})

    def note(self, text: str) -> None:
        # Prefect keeps the text, and prints it to the worker's log.
        self._log.info(shown(masked(text)))

    def __enter__(self) -> PageReport:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(timeout=10)

    def _post(self) -> None:
        """Refresh the page until the stage is over, and once more after that."""
        began = picture_due = time.monotonic()
        has_warned = is_over = False
        with get_client(sync_client=True) as client:
            while not is_over:
                every = max(EVERY_S, SHARE * (time.monotonic() - began))
                is_over = self._over.wait(every)
                try:
                    self._show_progress(client)
                    if is_over or time.monotonic() >= picture_due:
                        picture_due = time.monotonic() + PICTURE_EVERY * every
                        self._show_loss(client)
                except httpx.HTTPError as error:
                    if not has_warned:
                        self._warn(error)
                    has_warned = True

    def _warn(self, error: httpx.HTTPError) -> None:
        reason = shown(masked(str(error)))
        self._log.warning("the run's page cannot be refreshed (%s); the work goes on", reason)

    def _show_progress(self, client: SyncPrefectClient) -> None:
        progress = self._progress
        if progress is None or progress == self._sent:
            return
        done, total, unit = progress
        percent = 100.0 * min(1.0, done / total) if total else 0.0
        description = f"{self._stage}: {_amount(done, total, unit)}"
        for run in {self._run, self._whole}:
            _put(client, run, "progress", percent, description)
        self._sent = progress

    def _show_loss(self, client: SyncPrefectClient) -> None:
        rows = list(self._metrics)
        if len(rows) <= self._drawn:
            return
        picture = data_uri(pictures.loss_svg(rows))
        description = f"{self._stage}: loss"
        _put(client, self._run, "image", picture, description, key=f"{self._stage}-loss")
        self._drawn = len(rows)


def _put(
    client: SyncPrefectClient,
    run: UUID,
    kind: str,
    data: Any,
    description: str,
    key: str | None = None,
) -> None:
    """Show `data` on the page of `run`, in place of what it showed of this kind before.

    Creates a new Prefect artifact if somebody has deleted the old one.
    """
    known = _shown.get((run, kind))
    if known:
        update = ArtifactUpdate(data=data, description=description)
        try:
            client.update_artifact(known, update)
            return
        except httpx.HTTPStatusError as error:
            if error.response.status_code != HTTPStatus.NOT_FOUND:
                raise
    new = ArtifactCreate(key=key, type=kind, data=data, description=description, flow_run_id=run)
    _shown[run, kind] = client.create_artifact(new).id


@contextmanager
def reporting(stage: str) -> Iterator[Report]:
    """Provide a report to the run's page and, if a person watches, to the terminal."""
    logging.getLogger("httpx").setLevel(logging.WARNING)
    with PageReport(stage) as page, console.reporting(stage) as terminal:
        yield _Combined(page, terminal)


class _Combined(Report):
    """Several reports, which all receive everything."""

    def __init__(self, *reports: Report):
        self._reports = reports

    def progress(self, done: float, total: float | None, unit: str) -> None:
        for report in self._reports:
            report.progress(done, total, unit)

    def metrics(self, step: int, **values: float | None) -> None:
        for report in self._reports:
            report.metrics(step, **values)

    def note(self, text: str) -> None:
        for report in self._reports:
            report.note(text)


@contextmanager
def _or_a_warning(page: str) -> Iterator[None]:
    """Turn any error of drawing or sending a page into a warning: the results are in the store."""
    try:
        yield
    except Exception as error:
        reason = f"{type(error).__name__}: {shown(masked(str(error)))}"
        get_run_logger().warning("%s cannot be drawn (%s); the run goes on", page, reason)


@_or_a_warning("the stage's page")
def show_stage(artifact: Artifact, title: str, store: Store) -> None:
    """Show the figures, samples, lineage and, if there is one, the loss curve of one artifact."""
    manifest = artifact.manifest
    page = _stage_markdown(artifact, title, store)
    _show_markdown(manifest.stage.replace("_", "-"), page, title)
    has_picture = (UUID(flow_run.id), "image") in _shown
    if "metrics" in artifact.contract.tables and not has_picture:
        rows = artifact.read("metrics").to_pylist()
        _show_image(f"{manifest.stage}-loss", pictures.loss_svg(rows), f"{title}: loss")


def _stage_markdown(artifact: Artifact, title: str, store: Store) -> str:
    manifest = artifact.manifest
    facts = manifest.facts
    when = f"{plain(manifest.started)} → {plain(manifest.finished)}"
    parts = [
        f"# {plain(title)}",
        f"{plain(str(artifact))} · {manifest.bytes / 1e6:,.1f} MB · {when}",
    ]
    parts += [f"> {plain(note)}" for note in facts.get("notes", [])]
    for head, values in (
        (("table", "rows"), manifest.rows),
        (("figure", "value"), facts.get("figures")),
        (("refused because", "rows"), facts.get("rejected")),
    ):
        if values:
            parts.append(table(head, values.items()))
    for sample in facts.get("samples", [])[:MAX_SAMPLES]:
        lines = [f"**{plain(key)}**\n{quotation(str(value))}" for key, value in sample.items()]
        parts.append("\n".join(lines))
    parts += ["## Made from", f"```mermaid\n{lineage.mermaid(store, artifact)}\n```"]
    return "\n\n".join(part for part in parts if part)


@_or_a_warning("the page of the whole")
def show_whole(name: str, store: Store) -> None:
    """Show the page of a whole run: funnel, loss, scores and lineage, as far as they exist."""
    made = {}
    for output, pointer in store.refs.outputs(name).items():
        if store.has(pointer.artifact_type, pointer.id):
            made[output] = store.open(pointer.artifact_type, pointer.id, verify=False)
    manifests = [artifact.manifest for artifact in made.values()]
    _show_image("funnel", pictures.funnel_svg(manifests), "Documents kept and lost")
    if "base_checkpoint" in made:
        rows = made["base_checkpoint"].read("metrics").to_pylist()
        _show_image("loss", pictures.loss_svg(rows), "Loss of pretraining")
    if "scores" in made:
        _show_scores(name, made["scores"])
    if "release" in made:
        drawn = lineage.mermaid(store, made["release"])
        text = f"# What {plain(name)} was made from\n\n```mermaid\n{drawn}\n```"
        _show_markdown("lineage", text, f"Lineage of {name}")


def _show_scores(name: str, scores: Artifact) -> None:
    columns = ("task", "metric", "value", "stderr", "n", "baseline", "baseline_name")
    rows = scores.read("scores", columns).to_pylist()
    _show_image("scores-picture", pictures.scores_svg(rows), "Scores beside their baselines")
    cells = list(map(itemgetter(*columns), rows))
    text = f"# Scores of {plain(name)}\n\n{table(columns, cells)}"
    _show_markdown("scores", text, f"Scores of {name}")


def data_uri(svg: str) -> str:
    """Return an SVG as a data: URI, which any page can show as an image."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def _show_image(key: str, svg: str, description: str) -> None:
    create_image_artifact(image_url=data_uri(svg), key=key, description=description)


def _show_markdown(key: str, text: str, description: str) -> None:
    shortened = text.encode()[:MAX_BYTES].decode(errors="ignore")
    create_markdown_artifact(markdown=shortened, key=key, description=description)


def _amount(done: float, total: float | None, unit: str) -> str:
    return f"{done:,.0f} of {total:,.0f} {unit}" if total else f"{done:,.0f} {unit}"
