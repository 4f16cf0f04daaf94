"""How a stage tells what it is doing while it runs, and what it found when it is done. Stages know no console and no UI."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


class Report:
    """Hears of progress. This one is silent; flows have one for the console and one for the Prefect UI."""

    def progress(self, done: float, total: float | None, unit: str) -> None:
        """`done` of `total` units so far (None: nobody knows how many). Cheap: call as often as you like."""

    def metrics(self, step: int, **values: float | None) -> None:
        """Figures of one training step, by column name of the checkpoint's metrics table."""

    def note(self, text: str) -> None:
        """One sentence that a person should see now: a fallback taken, a host skipped, a resume."""


@dataclass(frozen=True)
class Facts:
    """What a stage found, for the manifest, the run's page and the cards. All values are plain JSON.

    figures:  name → number or word, in the order to show, e.g. {"bytes_per_token": 3.9}
    rejected: reason → rows
    samples:  a few rows to look at, e.g. [{"prompt": …, "answer": …}]
    notes:    sentences a reader of the cards must know
    """

    figures: dict[str, float | int | str | bool | None] = field(default_factory=dict)
    rejected: dict[str, int] = field(default_factory=dict)
    samples: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
