"""describe: everything upstream becomes a model card, a data card, the lineage and two pictures."""

from __future__ import annotations

import json

from data_contracts import Artifact, ConfigError, Draft
from stages.describe.config import UNKNOWN, DescribeConfig
from stages.describe.counts import texts
from stages.describe.data_card import data_card
from stages.describe.model_card import CHECKPOINTS, model_card, newest, parameters
from stages.report import Facts, Report
from stages.reporting import pictures
from stages.reporting.lineage import lineage, mermaid

METRICS = ["step", "loss", "heldout_loss"]


def run(config: DescribeConfig, *, out: Draft, report: Report, **given: Artifact) -> Facts:
    """Write the release from whatever inputs are given, each under its output; what is missing is left out or says so."""
    if not given:
        fix = "groundup stage describe --name NAME takes all artifacts of a run"
        raise ConfigError("stage describe", "was given nothing to describe", fix)
    manifests = {output: artifact.manifest for output, artifact in given.items()}
    trained_on = texts(given["training_documents"]) if "training_documents" in given else None
    trainings = {
        title: given[output].read("metrics", METRICS).to_pylist()
        for output, title in CHECKPOINTS.items()
        if output in given
    }
    files = {
        "README.md": lambda: model_card(config, given, trained_on),
        "DATA.md": lambda: data_card(config, given, trained_on),
        "lineage.json": lambda: json.dumps(lineage(manifests), indent=1, ensure_ascii=False) + "\n",
        "lineage.mmd": lambda: mermaid(manifests.values()),
        "funnel.svg": lambda: pictures.funnel_svg(manifests.values()),
        "loss.svg": lambda: pictures.losses_svg(trainings),
    }
    for done, (name, text) in enumerate(files.items()):
        report.progress(done, len(files), "files")
        out.path(name).write_text(text(), "utf-8")
    report.progress(len(files), len(files), "files")
    open_fields = [name for name, value in config.model_dump().items() if value == UNKNOWN]
    notes = [f"{UNKNOWN} by a person: {', '.join(open_fields)}."] if open_fields else []
    checkpoint = newest(given)
    return Facts(
        figures={
            "artifacts": len(given),
            "parameters": parameters(checkpoint) if checkpoint else None,
        },
        notes=notes,
    )
