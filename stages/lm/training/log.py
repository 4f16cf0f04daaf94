"""What a training records about itself: the metrics table, notes, and the steps it skipped."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from stages.report import Report

NOT_REPORTED = ("step", "skipped")  # columns that the report does not take as metrics


class TrainingLog:
    """The metrics table, collected row by row.

    Attributes:
        metrics: The finished rows.
        notes: What a reader must know.
        skipped: Steps skipped so far.
        skipped_in_row: Steps skipped since the last good one.

    Args:
        report: Receives the rows and notes as they come.
        log_every: Steps between rows.
    """

    def __init__(self, report: Report, log_every: int):
        self.metrics: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self.skipped = 0
        self.skipped_in_row = 0
        self._report = report
        self._log_every = log_every
        self._row: dict[str, Any] = {}
        self._since_last_row: list[dict[str, float]] = []  # figures of the good steps

    def note(self, text: str) -> None:
        """Add a note and report it."""
        self.notes.append(text)
        self._report.note(text)

    def add_good_step(self, row: dict[str, Any], figures: dict[str, float]) -> None:
        """Begin the row of a step that updated the weights.

        Args:
            row: Columns that hold for this step alone.
            figures: Columns that are averaged over the steps since the last finished row.
        """
        self._row = {**row, "skipped": False}
        self._since_last_row.append(figures)
        self.skipped_in_row = 0

    def add_skipped_step(self, row: dict[str, Any], loss: float) -> None:
        """Begin the row of a step that left the weights as they were.

        Args:
            row: Columns that hold for this step alone.
            loss: The loss of the step, for the note.
        """
        self._row = {**row, "skipped": True}
        self.skipped += 1
        self.skipped_in_row += 1
        norm = row["gradient_norm"]
        self.note(f"step {row['step']} was skipped: loss {loss:.4g}, gradient norm {norm}")

    def add_heldout(self, figures: Mapping[str, float]) -> None:
        """Add held-out figures to the row.

        Args:
            figures: Values by column.
        """
        for name, value in figures.items():
            self._row[name] = finite_or_none(value)

    def finish_row(self, is_last: bool) -> None:
        """Add the row to the table if it is due, holds held-out figures or was skipped.

        Args:
            is_last: Whether the training ends with this row.
        """
        row = self._row
        is_due = is_last or row["step"] % self._log_every == 0
        if not (is_due or row["skipped"] or "heldout_loss" in row):
            return
        if self._since_last_row:
            for name in self._since_last_row[0]:
                total = sum(figures[name] for figures in self._since_last_row)
                row[name] = total / len(self._since_last_row)
        self._since_last_row = []
        self.metrics.append(row)
        shown = {name: value for name, value in row.items() if name not in NOT_REPORTED}
        self._report.metrics(row["step"], **shown)

    def state(self) -> dict[str, Any]:
        """Return plain values from which `load` continues."""
        return {
            "skipped": self.skipped,
            "skipped_in_row": self.skipped_in_row,
            "metrics": self.metrics,
            "notes": self.notes,
            "since_log": self._since_last_row,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`. Notes made before stay, after those of the state.

        Args:
            state: As `state` returned it.
        """
        self.skipped = state["skipped"]
        self.skipped_in_row = state["skipped_in_row"]
        self.metrics = state["metrics"]
        self.notes = state["notes"] + self.notes
        self._since_last_row = state["since_log"]


def finite_or_none(value: float) -> float | None:
    """Return the value as a table can hold it: None for infinities and NaN."""
    return value if math.isfinite(value) else None
