"""What a person sees on a run's page in the Prefect UI: progress while it runs, then figures, pictures and lineage.

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
from typing import Any
from uuid import UUID

import httpx
from prefect.artifacts import create_image_artifact, create_markdown_artifact
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.exceptions import PrefectHTTPStatusError
from prefect.logging import get_run_logger
from prefect.runtime import flow_run

from data_contracts import Artifact, Store
from flows import console, lineage
from flows.console import cell
from stages import STAGES
from stages.describe import pictures
from stages.describe.markdown import quotation
from stages.report import Report

EVERY_S = 2.0  # how often a run's page is refreshed while a stage works
PICTURE_EVERY_S = 20.0
_shown: dict[tuple[UUID, str], UUID] = {}  # (run, kind) → what its page has; the page of a whole has one bar for all its stages
_whole: ContextVar[UUID | None] = ContextVar("whole", default=None)  # Prefect would have to be asked for it, stage by stage
MAX_BYTES = 900_000  # Prefect refuses events of more than 1.5 MB


def whole() -> None:
    """The flow that runs now consists of stages: their progress is shown on its page, too."""
    _whole.set(UUID(flow_run.id))


class PageReport(Report):
    """Sends the latest progress to the UI from a thread of its own, so that no stage ever waits for the server.

    A server that dies does not stop the work: the page stays behind, one warning is logged.
    """

    def __init__(self, stage: str):
        self._stage, self._log = stage, get_run_logger()
        self._run = UUID(flow_run.id)
        self._whole = _whole.get() or self._run
        self._progress: tuple[float, float | None, str] | None = None
        self._metrics: list[dict[str, Any]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._post, name=f"page of {stage}", daemon=True)

    def progress(self, done: float, total: float | None, unit: str) -> None:
        self._progress = (done, total, unit)

    def metrics(self, step: int, **values: float | None) -> None:
        self._metrics.append({"step": step, **values})

    def note(self, text: str) -> None:
        self._log.info(text)

    def __enter__(self) -> PageReport:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(timeout=10)

    def _post(self) -> None:
        sent, drawn, drawn_at = None, 0, 0.0
        with get_client(sync_client=True) as client:
            while True:
                last = self._over.wait(EVERY_S)
                try:
                    if self._progress and self._progress != sent:
                        sent = self._progress
                        done, total, unit = sent
                        share = 100.0 * min(1.0, done / total) if total else 0.0
                        told = f"{self._stage}: {_amount(done, total, unit)}"
                        for run in {self._run, self._whole}:
                            self._put(client, run, "progress", share, told)
                    if len(self._metrics) > drawn and (last or time.monotonic() - drawn_at > PICTURE_EVERY_S):
                        drawn, drawn_at = len(self._metrics), time.monotonic()
                        picture = data_uri(pictures.loss_svg(list(self._metrics)))
                        self._put(client, self._run, "image", picture, f"{self._stage}: loss", key=f"{self._stage}-loss")
                except (httpx.HTTPError, PrefectHTTPStatusError) as error:
                    self._log.warning("the run's page cannot be refreshed (%s); the work goes on", error)
                    return
                if last:
                    return

    @staticmethod
    def _put(client: SyncPrefectClient, run: UUID, kind: str, data: Any, description: str, key: str | None = None) -> None:
        if known := _shown.get((run, kind)):
            client.update_artifact(known, ArtifactUpdate(data=data, description=description))
        else:
            made = client.create_artifact(ArtifactCreate(key=key, type=kind, data=data, description=description, flow_run_id=run))
            _shown[run, kind] = made.id


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


def show_stage(artifact: Artifact, title: str, store: Store) -> None:
    """Figures, samples and lineage of one artifact; its loss curve if it has one."""
    manifest = artifact.manifest
    facts = manifest.facts
    parts = [f"# {title}", f"`{artifact}` · {manifest.bytes / 1e6:,.1f} MB · {manifest.started} → {manifest.finished}"]
    parts += [f"> {note}" for note in facts.get("notes", [])]
    parts.append(_table(("table", "rows"), list(manifest.rows.items())))
    parts.append(_table(("figure", "value"), list(facts.get("figures", {}).items())))
    parts.append(_table(("refused because", "rows"), list(facts.get("rejected", {}).items())))
    for sample in facts.get("samples", [])[:5]:
        parts.append("\n".join(f"**{key}**\n{quotation(str(value))}" for key, value in sample.items()))
    parts += ["## Made from", f"```mermaid\n{lineage.mermaid(store, artifact)}\n```"]
    _markdown(manifest.stage.replace("_", "-"), "\n\n".join(p for p in parts if p), title)
    if "metrics" in artifact.contract.tables and (UUID(flow_run.id), "image") not in _shown:
        rows = artifact.read("metrics").to_pylist()
        create_image_artifact(image_url=data_uri(pictures.loss_svg(rows)), key=f"{manifest.stage}-loss", description=f"{title}: loss")


def show_whole(name: str, store: Store) -> None:
    """The page of a whole run: funnel, loss, scores, lineage. Nothing, if `name` holds no whole run."""
    made = {role: store.open(p.noun, p.id, verify=False) for role, p in store.names.roles(name).items() if store.has(p.noun, p.id)}
    if not {row.role for row in STAGES} <= set(made):
        return
    manifests = [artifact.manifest for artifact in made.values()]
    create_image_artifact(image_url=data_uri(pictures.funnel_svg(manifests)), key="funnel", description="Documents kept and lost")
    base = made["base_checkpoint"].read("metrics").to_pylist()
    create_image_artifact(image_url=data_uri(pictures.loss_svg(base)), key="loss", description="Loss of pretraining")
    columns = ("task", "metric", "value", "stderr", "n", "baseline", "baseline_name")
    scores = made["scores"].read("scores", columns).to_pylist()
    rows = [tuple(row[column] for column in columns) for row in scores]
    whole = lineage.mermaid(store, made["release"])
    create_image_artifact(
        image_url=data_uri(pictures.scores_svg(scores)), key="scores-picture", description="Scores beside their baselines"
    )
    _markdown("scores", f"# Scores of {name}\n\n" + _table(columns, rows), f"Scores of {name}")
    _markdown("lineage", f"# What {name} was made from\n\n```mermaid\n{whole}\n```", f"Lineage of {name}")


def data_uri(svg: str) -> str:
    """An SVG as an image address that any page can show."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def _markdown(key: str, text: str, description: str) -> None:
    create_markdown_artifact(markdown=text.encode()[:MAX_BYTES].decode(errors="ignore"), key=key, description=description)


def _table(head: tuple[str, ...], rows: list[Any]) -> str:
    if not rows:
        return ""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in rows:
        cells = (cell(value).replace("|", "\\|").replace("\n", " ") for value in row)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _amount(done: float, total: float | None, unit: str) -> str:
    return f"{done:,.0f} of {total:,.0f} {unit}" if total else f"{done:,.0f} {unit}"
