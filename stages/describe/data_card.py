"""The data card: the sources of the text, what was removed and why, and what is held out.

It contains counts only, from manifests and tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from data_contracts import Artifact
from stages.describe import counts
from stages.describe.config import UNKNOWN, DescribeConfig
from stages.describe.counts import Texts
from stages.reporting.funnel import Step, funnel
from stages.reporting.markdown import folded, plain, settings, table

DATA_STAGES = ("raw_documents", "clean_documents", "unique_documents", "training_documents")


def data_card(config: DescribeConfig, given: Mapping[str, Artifact], texts: Texts | None) -> str:
    """Return the text of DATA.md.

    Args:
        config: The entries of the cards that no manifest contains.
        given: Any of the inputs of the stage.
        texts: Counts of the training text; None if it is not among the inputs.
    """
    steps = funnel(artifact.manifest for artifact in given.values())
    parts = [
        f"# Data of {plain(config.name)}",
        "Counts are of the run's tables and manifests. A licence is what a page declares of itself:"
        " it is no advice on what is allowed.",
        _sources(given, texts),
        _robots(given),
        _funnel(steps),
        _texts(texts),
        _personal(given),
        _duplicates(given),
        _decontamination(given),
        _heldout(given),
        _tokens(given),
        _dialogues(given),
        _terms(config),
        _settings(given),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _sources(given: Mapping[str, Artifact], texts: Texts | None) -> str:
    if "raw_documents" not in given:
        return f"## Sources\n\n{UNKNOWN}"
    head = (
        "source",
        "pages fetched",
        "bytes",
        "with a declared licence",
        "documents trained on",
    )
    rows = []
    for name, source in counts.sources(given["raw_documents"]).items():
        trained_on = texts.by_source[name] if texts else None
        rows.append((name, source.pages, source.bytes, source.declared_licences, trained_on))
    return f"## Sources\n\n{table(head, rows)}"


def _robots(given: Mapping[str, Artifact]) -> str:
    if "raw_documents" not in given:
        return ""
    raw_documents = given["raw_documents"]
    evidence = counts.robots(raw_documents)
    failures = counts.count(raw_documents, "failures", "reason")
    meta = table(("content", "pages"), counts.shown(evidence.meta))
    headers = table(("content", "pages"), counts.shown(evidence.headers))
    not_fetched = table(("reason", "pages"), failures.items())
    parts = [
        "## What the sites said",
        table(("robots.txt", "pages"), evidence.verdicts.items()),
        f"`<meta name=robots>`:\n\n{meta}",
        f"X-Robots-Tag header:\n\n{headers}",
        f"Pages that were not fetched:\n\n{not_fetched}",
    ]
    return "\n\n".join(parts)


def _funnel(steps: Sequence[Step]) -> str:
    if not steps:
        return ""
    rows = [(step.stage, _kept(step), step.rows_lost) for step in steps]
    parts = [
        "## Kept and lost",
        "![Funnel](funnel.svg)",
        table(("stage", "kept", "lost"), rows),
    ]
    for step in steps:
        if step.lost:
            reasons = table(("reason", "documents"), counts.shown(step.lost))
            parts.append(f"{step.stage}, lost by reason:\n\n{reasons}")
    return "\n\n".join(parts)


def _kept(step: Step) -> str:
    parts = []
    for name, count in step.kept.items():
        parts.append(f"{count:,} {name}")
    return " + ".join(parts)


def _texts(texts: Texts | None) -> str:
    if texts is None:
        return ""
    sizes = [
        ("Documents", texts.by_source.total()),
        ("UTF-8 bytes", texts.bytes),
    ]
    languages = counts.shown(counts.ranked(texts.by_language))
    licences = counts.shown(counts.ranked(texts.by_license))
    parts = [
        "## The training text",
        table(("", ""), sizes),
        table(("language", "documents"), languages),
        table(("declared licence", "documents"), licences),
    ]
    return "\n\n".join(parts)


def _personal(given: Mapping[str, Artifact]) -> str:
    if "clean_documents" not in given:
        return ""
    redacted = counts.total(given["clean_documents"], "documents", "redactions")
    return (
        "## Personal data\n\n"
        "Pieces of personal data replaced by placeholders in the documents kept: "
        f"{redacted:,}."
    )


def _duplicates(given: Mapping[str, Artifact]) -> str:
    if "unique_documents" not in given:
        return ""
    kinds = counts.count(given["unique_documents"], "rejects", "reason")
    return (
        "## Duplicates\n\nDocuments left out because another one says the same:\n\n"
        f"{table(('kind', 'documents'), kinds.items())}"
    )


def _decontamination(given: Mapping[str, Artifact]) -> str:
    if "training_documents" not in given:
        return ""
    training_documents = given["training_documents"]
    rejects = training_documents.rows("rejects")
    items = counts.distinct(training_documents, "rejects", "item")
    return (
        "## Decontamination\n\n"
        f"Documents left out because they share text with an evaluation item: {rejects:,}. "
        f"Evaluation items that were hit: {items:,}."
    )


def _heldout(given: Mapping[str, Artifact]) -> str:
    rows: list[tuple[str, int]] = []
    if "unique_documents" in given:
        documents = given["unique_documents"].rows("heldout")
        rows.append(("held-out documents, split by cluster of near-duplicates", documents))
    if "eval_items" in given:
        items = given["eval_items"]
        rows.append(("evaluation items", items.rows("items")))
        rows.append(("pages for bits per byte", items.rows("pages")))
        for task, count in counts.shown(counts.count(items, "items", "task")):
            rows.append((f"items of {task}", count))
    if not rows:
        return ""
    return f"## Held out\n\n{table(('', 'rows'), rows)}"


def _tokens(given: Mapping[str, Artifact]) -> str:
    rows: list[tuple[str, Any]] = []
    for output in ("tokenizer", "token_shards"):
        if output in given:
            facts = given[output].manifest.facts
            rows += facts.get("figures", {}).items()
    if not rows:
        return ""
    return f"## Tokens\n\n{table(('', ''), rows)}"


def _dialogues(given: Mapping[str, Artifact]) -> str:
    parts = []
    for output, rows in (("conversations", "conversations"), ("preferences", "pairs")):
        if output in given:
            artifact = given[output]
            kinds = counts.shown(counts.count(artifact, rows, "kind"))
            refused = counts.shown(counts.count(artifact, "rejects", "reason"))
            parts += [
                f"{output.capitalize()}:",
                table(("kind", rows), kinds),
                "Refused:",
                table(("reason", "rows"), refused),
            ]
    return _section("## Conversations and preferences", parts)


def _terms(config: DescribeConfig) -> str:
    rows = [
        ("On what terms the data may be used", config.data_license),
        ("Legal basis of the collection", UNKNOWN),
        ("Requests for removal", config.contact),
        ("Who collected it", config.author),
    ]
    return f"## Terms\n\n{table(('', ''), rows)}"


def _settings(given: Mapping[str, Artifact]) -> str:
    blocks = []
    for output in DATA_STAGES:
        if output in given:
            manifest = given[output].manifest
            blocks.append(folded(f"{manifest.stage}: {given[output]}", settings(manifest)))
    return _section("## Settings of the data stages", blocks)


def _section(heading: str, parts: Iterable[str]) -> str:
    """Join the parts under their heading; "" if there are none."""
    parts = list(parts)
    return "\n\n".join([heading, *parts]) if parts else ""
