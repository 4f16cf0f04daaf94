"""describe: writes a model card, a data card, the lineage and two pictures from all artifacts."""

from __future__ import annotations

import json
from collections.abc import Mapping

from data_contracts import Artifact, ConfigError, Draft
from stages.describe.config import UNKNOWN, DescribeConfig
from stages.describe.counts import texts
from stages.describe.data_card import data_card
from stages.describe.model_card import CHECKPOINTS, latest_checkpoint, model_card, parameters
from stages.report import Facts, Report
from stages.reporting import pictures
from stages.reporting.lineage import lineage, mermaid

METRICS = ["step", "loss", "heldout_loss"]


def run(config: DescribeConfig, *, out: Draft, report: Report, **given: Artifact) -> Facts:
    """Write the release from the inputs that are given.

    What needs a missing input is left out, or says that it is unknown.

    Args:
        config: The entries of the cards that no manifest contains.
        out: The draft of the release.
        report: Receives the progress.
        given: Any of the stage's inputs, by the name of the output.

    Raises:
        ConfigError: No input is given.
    """
    if not given:
        fix = "groundup stage describe --name NAME takes all artifacts of a run"
        raise ConfigError("stage describe", "was given nothing to describe", fix)
    manifests = {output: artifact.manifest for output, artifact in given.items()}
    trained_on = texts(given["training_documents"]) if "training_documents" in given else None
    files = {
        "README.md": lambda: model_card(config, given, trained_on),
        "DATA.md": lambda: data_card(config, given, trained_on),
        "lineage.json": lambda: json.dumps(lineage(manifests), indent=1, ensure_ascii=False) + "\n",
        "lineage.mmd": lambda: mermaid(manifests.values()),
        "funnel.svg": lambda: pictures.funnel_svg(manifests.values()),
        "loss.svg": lambda: _loss_svg(given),
    }
    for done, (name, text) in enumerate(files.items()):
        report.progress(done, len(files), "files")
        out.path(name).write_text(text(), "utf-8")
    report.progress(len(files), len(files), "files")
    checkpoint = latest_checkpoint(given)
    weights = parameters(checkpoint) if checkpoint else None
    return Facts(
        figures={"artifacts": len(given), "parameters": weights},
        notes=_notes(config),
    )


def _loss_svg(given: Mapping[str, Artifact]) -> str:
    trainings = {}
    for output, title in CHECKPOINTS.items():
        if output in given:
            trainings[title] = given[output].read("metrics", METRICS).to_pylist()
    return pictures.losses_svg(trainings)


def _notes(config: DescribeConfig) -> list[str]:
    open_fields = [name for name, value in config.model_dump().items() if value == UNKNOWN]
    return [f"{UNKNOWN} by a person: {', '.join(open_fields)}."] if open_fields else []
