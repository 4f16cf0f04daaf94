"""How a stage reports its progress and what it found. Stages know neither console nor UI."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


class Report:
    """A receiver of the progress of a stage.

    This one does nothing. `flows` has one for the console and one for the Prefect UI.
    """

    def progress(self, done: float, total: float | None, unit: str) -> None:
        """Report that `done` of `total` units are finished. Cheap: call it as often as you like.

        Args:
            done: How many units are finished.
            total: How many units there are; None if that is unknown.
            unit: What is counted, e.g. "documents".
        """

    def metrics(self, step: int, **values: float | None) -> None:
        """Report figures of one training step, by column of the checkpoint's metrics table."""

    def note(self, text: str) -> None:
        """Report a sentence that a person should see now: a fallback, a skipped host, a resume."""


@dataclass(frozen=True)
class Facts:
    """What a stage found, for the manifest, the run's page and the cards, as plain JSON.

    Attributes:
        figures: name → number or word, in the order to show, e.g. {"bytes_per_token": 3.9}
        rejected: reason → rows
        samples: A few rows to look at, e.g. [{"prompt": …, "answer": …}]
        notes: Sentences that a reader of the cards must know.
    """

    figures: dict[str, float | int | str | bool | None] = field(default_factory=dict)
    rejected: dict[str, int] = field(default_factory=dict)
    samples: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
