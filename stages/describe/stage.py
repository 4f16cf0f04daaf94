"""describe: writes a model card, a data card, the lineage and two pictures from all artifacts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from data_contracts import Artifact, ConfigError, Draft
from stages.describe.config import UNKNOWN, DescribeConfig
from stages.describe.counts import texts
from stages.describe.data_card import data_card
from stages.describe.model_card import CHECKPOINTS, latest_checkpoint, model_card, parameters
from stages.report import Facts, Report
from stages.reporting import pictures
from stages.reporting.lineage import lineage, mermaid

METRICS = ["step", "loss", "heldout_loss"]
FILES = 6


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
    for done, (name, text) in enumerate(_files(config, given)):
        out.path(name).write_text(text, "utf-8")
        report.progress(done + 1, FILES, "files")
    checkpoint = latest_checkpoint(given)
    weights = parameters(checkpoint) if checkpoint else None
    return Facts(
        figures={"artifacts": len(given), "parameters": weights},
        notes=_notes(config),
    )


def _files(config: DescribeConfig, given: Mapping[str, Artifact]) -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each file, made one after another."""
    manifests = {output: artifact.manifest for output, artifact in given.items()}
    trained_on = None
    if "training_documents" in given:
        trained_on = texts(given["training_documents"])
    yield "README.md", model_card(config, given, trained_on)
    yield "DATA.md", data_card(config, given, trained_on)
    found = lineage(manifests)
    yield "lineage.json", json.dumps(found, indent=1, ensure_ascii=False) + "\n"
    yield "lineage.mmd", mermaid(manifests.values())
    yield "funnel.svg", pictures.funnel_svg(manifests.values())
    yield "loss.svg", _loss_svg(given)


def _loss_svg(given: Mapping[str, Artifact]) -> str:
    trainings = {}
    for output, title in CHECKPOINTS.items():
        if output in given:
            trainings[title] = given[output].read("metrics", METRICS).to_pylist()
    return pictures.losses_svg(trainings)


def _notes(config: DescribeConfig) -> list[str]:
    settings = config.model_dump()
    open_fields = [name for name, value in settings.items() if value == UNKNOWN]
    if not open_fields:
        return []
    return [f"{UNKNOWN} by a person: {', '.join(open_fields)}."]
