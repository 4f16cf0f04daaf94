"""The scores of the stage, and what a reader must know of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

SIGNIFICANT = 2.0  # standard errors


@dataclass
class Scores:
    """What one part of the evaluation found.

    Attributes:
        scores: Rows of the table `scores`.
        samples: Rows of the table `samples`.
        results: What lm-eval itself returned.
        notes: Sentences that a reader of the scores must know.
    """

    scores: list[dict[str, Any]] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)
    results: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def verdict(row: dict[str, Any]) -> str | None:
    """Return how a score compares with its baseline, as a sentence; None if it has no baseline.

    A score without a value gets a sentence that says so.

    Args:
        row: A row of the table `scores`.
    """
    what = f"{row['task']} {row['metric']}"
    if row.get("value") is None:
        return (
            f"{what}: not measured; the model gave no numbers, or there were no items or no data."
        )
    if row.get("baseline") is None:
        return None
    value, baseline, stderr = row["value"], row["baseline"], row["stderr"]
    beside = f"{value:.3f} beside {baseline:.3f} ({row['baseline_name']})"
    if not row["higher_is_better"]:
        below = "below" if value < baseline else "NOT below"
        return f"{what}: {beside}, {below} its baseline."
    if stderr is None:
        return (
            f"{what}: {beside}; its standard error is unknown, so nothing can be said about chance."
        )
    above = "above" if value > baseline + SIGNIFICANT * stderr else "NOT above"
    return f"{what}: {beside}, {above} chance by more than two standard errors ({stderr:.3f})."


def figures(scores: list[dict[str, Any]]) -> dict[str, float | None]:
    """Return each value and each baseline, rounded for the facts of the artifact.

    Args:
        scores: Rows of the table `scores`.
    """
    found: dict[str, float | None] = {}
    for row in scores:
        name = f"{row['task']}_{row['metric']}"
        value, baseline = row.get("value"), row.get("baseline")
        found[name] = None if value is None else round(value, 4)
        if baseline is not None:
            found[f"{name} ({row['baseline_name']})"] = round(baseline, 4)
    return found
