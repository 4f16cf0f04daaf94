"""The data card: where the text came from, what was taken out and why, what is held out. Counts only, from manifests and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from data_contracts import Artifact
from stages.describe import counts
from stages.describe.config import UNKNOWN, DescribeConfig
from stages.describe.counts import Texts
from stages.reporting.funnel import Step, funnel
from stages.reporting.markdown import folded, plain, settings, table


def data_card(config: DescribeConfig, given: Mapping[str, Artifact], texts: Texts | None) -> str:
    """The text of DATA.md. `given` may hold any of the inputs of the stage."""
    steps = funnel(artifact.manifest for artifact in given.values())
    parts = [
        f"# Data of {plain(config.name)}",
        "Counts are of the run's tables and manifests. A licence is what a page declares of itself: it is no advice on what is allowed.",
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
    rows = [
        (
            name,
            source.pages,
            source.bytes,
            source.declared_licences,
            texts.by_source[name] if texts else None,
        )
        for name, source in counts.sources(given["raw_documents"]).items()
    ]
    return "## Sources\n\n" + table(
        ("source", "pages fetched", "bytes", "with a declared licence", "documents trained on"),
        rows,
    )


def _robots(given: Mapping[str, Artifact]) -> str:
    if "raw_documents" not in given:
        return ""
    evidence = counts.robots(given["raw_documents"])
    parts = ["## What the sites said", table(("robots.txt", "pages"), evidence.verdicts.items())]
    parts.append(
        "`<meta name=robots>`:\n\n" + table(("content", "pages"), counts.shown(evidence.meta))
    )
    parts.append(
        "X-Robots-Tag header:\n\n" + table(("content", "pages"), counts.shown(evidence.headers))
    )
    failures = counts.count(given["raw_documents"], "failures", "reason")
    parts.append("Pages that were not fetched:\n\n" + table(("reason", "pages"), failures.items()))
    return "\n\n".join(parts)


def _funnel(steps: Sequence[Step]) -> str:
    if not steps:
        return ""
    rows = [
        (
            step.stage,
            " + ".join(f"{count:,} {name}" for name, count in step.kept.items()),
            step.rows_lost,
        )
        for step in steps
    ]
    parts = ["## Kept and lost", "![Funnel](funnel.svg)", table(("stage", "kept", "lost"), rows)]
    parts += [
        f"{step.stage}, lost by reason:\n\n{table(('reason', 'documents'), counts.shown(step.lost))}"
        for step in steps
        if step.lost
    ]
    return "\n\n".join(parts)


def _texts(texts: Texts | None) -> str:
    if texts is None:
        return ""
    documents = sum(texts.by_source.values())
    return "\n\n".join([
        "## The training text",
        table(("", ""), [("Documents", documents), ("UTF-8 bytes", texts.bytes)]),
        table(("language", "documents"), counts.shown(counts.ranked(texts.by_language))),
        table(("declared licence", "documents"), counts.shown(counts.ranked(texts.by_license))),
    ])  # fmt: skip


def _personal(given: Mapping[str, Artifact]) -> str:
    if "clean_documents" not in given:
        return ""
    redacted = counts.total(given["clean_documents"], "documents", "redactions")
    return f"## Personal data\n\nPieces of personal data replaced by placeholders in the documents kept: {redacted:,}."


def _duplicates(given: Mapping[str, Artifact]) -> str:
    if "unique_documents" not in given:
        return ""
    reasons = counts.count(given["unique_documents"], "rejects", "reason")
    return "## Duplicates\n\nDocuments left out because another one says the same:\n\n" + table(
        ("kind", "documents"), reasons.items()
    )


def _decontamination(given: Mapping[str, Artifact]) -> str:
    if "training_documents" not in given:
        return ""
    rejects = given["training_documents"].rows("rejects")
    items = counts.distinct(given["training_documents"], "rejects", "item")
    return (
        "## Decontamination\n\n"
        f"Documents left out because they share text with an evaluation item: {rejects:,}. Evaluation items that were hit: {items:,}."
    )


def _heldout(given: Mapping[str, Artifact]) -> str:
    rows = []
    if "unique_documents" in given:
        rows.append(
            (
                "held-out documents, split by cluster of near-duplicates",
                given["unique_documents"].rows("heldout"),
            )
        )
    if "eval_items" in given:
        items = given["eval_items"]
        rows += [
            ("evaluation items", items.rows("items")),
            ("pages for bits per byte", items.rows("pages")),
        ]
        rows += [
            (f"items of {task}", n)
            for task, n in counts.shown(counts.count(items, "items", "task"))
        ]
    return "## Held out\n\n" + table(("", "rows"), rows) if rows else ""


def _tokens(given: Mapping[str, Artifact]) -> str:
    rows = [
        item
        for output in ("tokenizer", "token_shards")
        if output in given
        for item in given[output].manifest.facts.get("figures", {}).items()
    ]
    return "## Tokens\n\n" + table(("", ""), rows) if rows else ""


def _dialogues(given: Mapping[str, Artifact]) -> str:
    parts = []
    for output, name in (("conversations", "conversations"), ("preferences", "pairs")):
        if output in given:
            kinds = counts.shown(counts.count(given[output], name, "kind"))
            refused = counts.shown(counts.count(given[output], "rejects", "reason"))
            parts.append(
                f"{output.capitalize()}:\n\n{table(('kind', name), kinds)}\n\nRefused:\n\n{table(('reason', 'rows'), refused)}"
            )
    return "\n\n".join(["## Conversations and preferences", *parts]) if parts else ""


def _terms(config: DescribeConfig) -> str:
    rows = [
        ("On what terms the data may be used", config.data_license),
        ("Legal basis of the collection", UNKNOWN),
        ("Requests for removal", config.contact),
        ("Who collected it", config.author),
    ]
    return "## Terms\n\n" + table(("", ""), rows)


def _settings(given: Mapping[str, Artifact]) -> str:
    data = [
        output
        for output in ("raw_documents", "clean_documents", "unique_documents", "training_documents")
        if output in given
    ]
    blocks = [
        folded(f"{given[output].manifest.stage}: {given[output]}", settings(given[output].manifest))
        for output in data
    ]
    return "\n\n".join(["## Settings of the data stages", *blocks]) if blocks else ""
