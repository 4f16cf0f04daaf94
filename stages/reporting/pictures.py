"""The pictures of a release, as SVG text. Equal input gives equal bytes.

The pages of flow runs show them, too, so they are drawn from manifests and rows alone.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from data_contracts import Manifest
from data_contracts.foreign_text import line
from stages.reporting.funnel import Step, funnel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Rows = Sequence[Mapping[str, Any]]

BLUE, ORANGE, GREY, LIGHT, INK = "#2f6db3", "#d9772b", "#8a8f98", "#e3e6ea", "#24292f"
MAX_POINTS = 400  # of a curve on a page
MAX_REASONS = 4  # named beside a bar of the funnel
# The reasons of a loss, most frequent first.
LOST = ["#d9772b", "#e6a06b", "#eec4a3", "#f3dccb", "#f7ebe2"]
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "xtick.color": GREY,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titleweight": "bold",
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "svg.fonttype": "path",
    "svg.hashsalt": "groundup",
    # Manifests and tables contain plain text, in which a single $ would be an error.
    "text.parse_math": False,
}


def funnel_svg(manifests: Iterable[Manifest]) -> str:
    """Draw the documents that each data stage kept and lost."""
    return _drawn(lambda figure: draw_funnel(figure, funnel(manifests)))


def loss_svg(rows: Rows) -> str:
    """Draw the training and held-out loss over the steps of one training.

    A long training is thinned out, but for the steps with a held-out loss: a page gets this picture
    again and again.

    Args:
        rows: Rows of a metrics table. Columns may be absent.
    """
    every = math.ceil(len(rows) / MAX_POINTS) or 1
    kept = []
    for number, row in enumerate(rows, 1):
        is_drawn = number % every == 0 or number == len(rows)
        if is_drawn or row.get("heldout_loss") is not None:
            kept.append(row)
    return losses_svg({"": kept})


def losses_svg(trainings: Mapping[str, Rows]) -> str:
    """Draw the losses of several trainings, side by side, with every step."""
    return _drawn(lambda figure: draw_losses(figure, trainings))


def scores_svg(rows: Rows) -> str:
    """Draw scores beside their baselines.

    Args:
        rows: Rows of a scores table. Those without a value or a baseline are left out.
    """
    return _drawn(lambda figure: draw_scores(figure, rows))


def draw_funnel(figure: Figure, steps: Sequence[Step]) -> None:
    """Draw a bar for each stage: what it kept, then what it lost by reason."""
    figure.set_size_inches(8, 0.9 + 0.75 * max(1, len(steps)))
    axes = figure.subplots()
    if not steps:
        _write_instead(axes, "no data stage among the inputs")
        return
    widest = max(step.rows_kept + step.rows_lost for step in steps) or 1
    for y, step in enumerate(steps):
        axes.barh(y, step.rows_kept, color=BLUE, height=0.42)
        left = step.rows_kept
        for number, lost in enumerate(step.lost.values()):
            color = LOST[min(number, len(LOST) - 1)]
            axes.barh(y, lost, left=left, color=color, height=0.42)
            left += lost
        axes.text(0, y - 0.29, _funnel_label(step), va="bottom", fontsize=8, color=INK)
    axes.set_yticks(range(len(steps)), [step.stage for step in steps], fontweight="bold")
    axes.set_ylim(len(steps) - 0.6, -0.7)
    axes.set_xlim(0, widest * 1.02)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_title("Documents kept (blue) and lost (orange), stage by stage")


def _funnel_label(step: Step) -> str:
    kept = " + ".join(f"{count:,} {line(table)}" for table, count in step.kept.items())
    if not step.lost:
        return kept
    most_frequent = list(step.lost.items())[:MAX_REASONS]
    reasons = ", ".join(f"{line(reason)} {count:,}" for reason, count in most_frequent)
    more = len(step.lost) - MAX_REASONS
    if more > 0:
        reasons += f", {more} more reasons"
    return f"{kept}   lost {step.rows_lost:,}: {reasons}"


def draw_losses(figure: Figure, trainings: Mapping[str, Rows]) -> None:
    """Draw a panel for each training, with a gap where a step was skipped."""
    trainings = {name: rows for name, rows in trainings.items() if rows}
    figure.set_size_inches(max(6.0, 3.6 * len(trainings)), 3.2)
    if not trainings:
        _write_instead(figure.subplots(), "no training metrics among the inputs")
        return
    panels = figure.subplots(1, len(trainings), squeeze=False)[0]
    for axes, (name, rows) in zip(panels, trainings.items(), strict=True):
        _draw_curve(axes, rows, "loss", "training", color=BLUE)
        _draw_curve(
            axes, rows, "heldout_loss", "held-out", color=ORANGE, marker="o", markersize=3.5
        )
        axes.set_title(name or "Loss")
        axes.set_xlabel("step")
        axes.set_ylabel("loss (nats)")
        axes.grid(axis="y", color=LIGHT, linewidth=0.8)
        axes.margins(x=0.08)
        if axes.lines:
            axes.legend(frameon=False, fontsize=8)


def _draw_curve(axes: Axes, rows: Rows, column: str, label: str, **style: Any) -> None:
    """Draw the finite values of a column over the steps; nothing if there are none."""
    steps, values = [], []
    for row in rows:
        value = row.get(column)
        if value is not None and math.isfinite(value):
            steps.append(row["step"])
            values.append(value)
    if values:
        label = f"{label}, last {values[-1]:.3g}"
        axes.plot(steps, values, linewidth=1.1, label=label, **style)


def draw_scores(figure: Figure, rows: Rows) -> None:
    """Draw a dot with two standard errors for each score, and a line for its baseline."""
    kept = [row for row in rows if row.get("value") is not None and row.get("baseline") is not None]
    figure.set_size_inches(7, 0.9 + 0.42 * max(1, len(kept)))
    axes = figure.subplots()
    if not kept:
        _write_instead(axes, "no score with a baseline")
        return
    for y, row in enumerate(kept):
        two_errors = 2 * (row.get("stderr") or 0)
        dot: dict[str, Any] = {"fmt": "o", "color": BLUE, "capsize": 3, "markersize": 5}
        axes.errorbar(row["value"], y, xerr=two_errors, **dot)
        axes.plot([row["baseline"]] * 2, [y - 0.3, y + 0.3], color=ORANGE, linewidth=2)
        label = line(row["baseline_name"] or "")
        beside: dict[str, Any] = {"textcoords": "offset points", "fontsize": 7, "color": ORANGE}
        axes.annotate(label, (row["baseline"], y - 0.3), (3, 0), **beside)
    names = [line(f"{row['task']}  {row['metric']}") for row in kept]
    axes.set_yticks(range(len(kept)), names)
    axes.set_ylim(len(kept) - 0.4, -0.6)
    axes.set_xlim(left=0)
    axes.grid(axis="x", color=LIGHT, linewidth=0.8)
    axes.set_title("Scores with two standard errors, beside their baselines (orange)")


def _write_instead(axes: Axes, text: str) -> None:
    """Write a text in place of a picture."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, ha="center", va="center", color=GREY, transform=axes.transAxes)


def _drawn(draw: Callable[[Figure], None]) -> str:
    # Takes half a second, which pages without pictures need not wait for.
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": "groundup"})
    return out.getvalue()
