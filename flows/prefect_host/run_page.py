"""What a person sees on a run's page in the Prefect UI: progress while it runs, then figures, pictures and lineage.

Pages are drawn from what is there, and no run stops because one cannot be drawn: its work is done, or goes on.
Prefect draws markdown (mermaid included) and images; pictures travel as data: URIs, because raw SVG would be dropped.
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

EVERY_S = 2.0  # how often a run's page is refreshed while a stage works …
SHARE = 0.005  # … and later this share of the time it has worked: Prefect keeps every refresh, with its content, as an event
PICTURE_EVERY = 10  # refreshes
_shown: dict[
    tuple[UUID, str], UUID
] = {}  # (run, kind) → what its page has; the page of a whole has one bar for all its stages
_whole: ContextVar[UUID | None] = ContextVar(
    "whole", default=None
)  # Prefect would have to be asked for it, stage by stage
MAX_BYTES = 900_000  # Prefect refuses events of more than 1.5 MB


def whole() -> None:
    """The flow that runs now consists of stages: their progress is shown on its page, too."""
    _whole.set(UUID(flow_run.id))


class PageReport(Report):
    """Sends the latest progress to the UI from a thread of its own, so that no stage ever waits for the server.

    While the server does not answer the page stays behind; that is a warning, told once.
    """

    def __init__(self, stage: str):
        self._stage, self._log = stage, get_run_logger()
        self._run = UUID(flow_run.id)
        self._whole = _whole.get() or self._run
        self._progress: tuple[float, float | None, str] | None = None
        self._sent: tuple[float, float | None, str] | None = None
        self._metrics: list[dict[str, Any]] = []
        self._drawn = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._post, name=f"page of {stage}", daemon=True)

    def progress(self, done: float, total: float | None, unit: str) -> None:
        self._progress = (done, total, unit)

    def metrics(self, step: int, **values: float | None) -> None:
        self._metrics.append({"step": step, **values})

    def note(self, text: str) -> None:
        self._log.info(shown(masked(text)))  # Prefect keeps it, and prints it to the worker's log

    def __enter__(self) -> PageReport:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(timeout=10)

    def _post(self) -> None:
        began = picture_due = time.monotonic()
        behind = over = False
        with get_client(sync_client=True) as client:
            while not over:
                every = max(EVERY_S, SHARE * (time.monotonic() - began))
                over = self._over.wait(every)
                try:
                    self._show_progress(client)
                    if over or time.monotonic() >= picture_due:
                        picture_due = time.monotonic() + PICTURE_EVERY * every
                        self._show_loss(client)
                except httpx.HTTPError as error:
                    if not behind:
                        self._log.warning(
                            "the run's page cannot be refreshed (%s); the work goes on",
                            shown(masked(str(error))),
                        )
                    behind = True

    def _show_progress(self, client: SyncPrefectClient) -> None:
        progress = self._progress
        if progress is None or progress == self._sent:
            return
        done, total, unit = progress
        share = 100.0 * min(1.0, done / total) if total else 0.0
        for run in {self._run, self._whole}:
            _put(client, run, "progress", share, f"{self._stage}: {_amount(done, total, unit)}")
        self._sent = progress

    def _show_loss(self, client: SyncPrefectClient) -> None:
        rows = list(self._metrics)
        if len(rows) > self._drawn:
            _put(
                client,
                self._run,
                "image",
                data_uri(pictures.loss_svg(rows)),
                f"{self._stage}: loss",
                key=f"{self._stage}-loss",
            )
            self._drawn = len(rows)


def _put(
    client: SyncPrefectClient,
    run: UUID,
    kind: str,
    data: Any,
    description: str,
    key: str | None = None,
) -> None:
    """Let the page of `run` show this in the place of what it showed of this kind; anew, if somebody has deleted that."""
    if known := _shown.get((run, kind)):
        try:
            return client.update_artifact(known, ArtifactUpdate(data=data, description=description))
        except httpx.HTTPStatusError as error:
            if error.response.status_code != HTTPStatus.NOT_FOUND:
                raise
    made = client.create_artifact(
        ArtifactCreate(key=key, type=kind, data=data, description=description, flow_run_id=run)
    )
    _shown[run, kind] = made.id
    return None


@contextmanager
def reporting(stage: str) -> Iterator[Report]:
    """A report that is heard on the run's page and, where a person watches, in the terminal."""
    logging.getLogger("httpx").setLevel(logging.WARNING)
    with PageReport(stage) as page, console.reporting(stage) as terminal:
        yield _Both(page, terminal)


class _Both(Report):
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
    """Whatever keeps a page from being drawn or sent, the results are in the store already."""
    try:
        yield
    except Exception as error:
        told = shown(masked(str(error)))
        get_run_logger().warning(
            "%s cannot be drawn (%s: %s); the run goes on", page, type(error).__name__, told
        )


@_or_a_warning("the stage's page")
def show_stage(artifact: Artifact, title: str, store: Store) -> None:
    """Figures, samples and lineage of one artifact; its loss curve if it has one."""
    manifest = artifact.manifest
    facts = manifest.facts
    when = f"{plain(manifest.started)} → {plain(manifest.finished)}"
    parts = [
        f"# {plain(title)}",
        f"{plain(str(artifact))} · {manifest.bytes / 1e6:,.1f} MB · {when}",
    ]
    parts += [f"> {plain(note)}" for note in facts.get("notes", [])]
    for head, found in (
        (("table", "rows"), manifest.rows),
        (("figure", "value"), facts.get("figures")),
        (("refused because", "rows"), facts.get("rejected")),
    ):
        if found:
            parts.append(table(head, found.items()))
    for sample in facts.get("samples", [])[:5]:
        parts.append(
            "\n".join(f"**{plain(key)}**\n{quotation(str(value))}" for key, value in sample.items())
        )
    parts += ["## Made from", f"```mermaid\n{lineage.mermaid(store, artifact)}\n```"]
    _markdown(manifest.stage.replace("_", "-"), "\n\n".join(p for p in parts if p), title)
    if "metrics" in artifact.contract.tables and (UUID(flow_run.id), "image") not in _shown:
        rows = artifact.read("metrics").to_pylist()
        _image(f"{manifest.stage}-loss", pictures.loss_svg(rows), f"{title}: loss")


@_or_a_warning("the page of the whole")
def show_whole(name: str, store: Store) -> None:
    """The page of a whole run, as far as `name` holds one: funnel, loss, scores, lineage."""
    made = {
        output: store.open(p.artifact_type, p.id, verify=False)
        for output, p in store.refs.outputs(name).items()
        if store.has(p.artifact_type, p.id)
    }
    _image(
        "funnel",
        pictures.funnel_svg(artifact.manifest for artifact in made.values()),
        "Documents kept and lost",
    )
    if base := made.get("base_checkpoint"):
        _image("loss", pictures.loss_svg(base.read("metrics").to_pylist()), "Loss of pretraining")
    if scores := made.get("scores"):
        columns = ("task", "metric", "value", "stderr", "n", "baseline", "baseline_name")
        rows = scores.read("scores", columns).to_pylist()
        _image("scores-picture", pictures.scores_svg(rows), "Scores beside their baselines")
        shown_scores = table(columns, [tuple(row[column] for column in columns) for row in rows])
        _markdown("scores", f"# Scores of {plain(name)}\n\n{shown_scores}", f"Scores of {name}")
    if release := made.get("release"):
        drawn = lineage.mermaid(store, release)
        _markdown(
            "lineage",
            f"# What {plain(name)} was made from\n\n```mermaid\n{drawn}\n```",
            f"Lineage of {name}",
        )


def data_uri(svg: str) -> str:
    """An SVG as an image address that any page can show."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def _image(key: str, svg: str, description: str) -> None:
    create_image_artifact(image_url=data_uri(svg), key=key, description=description)


def _markdown(key: str, text: str, description: str) -> None:
    create_markdown_artifact(
        markdown=text.encode()[:MAX_BYTES].decode(errors="ignore"), key=key, description=description
    )


def _amount(done: float, total: float | None, unit: str) -> str:
    return f"{done:,.0f} of {total:,.0f} {unit}" if total else f"{done:,.0f} {unit}"
