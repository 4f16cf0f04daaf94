"""The pictures of a release, as SVG text: equal input, equal bytes. Runs' pages draw them too, so they need manifests and rows only."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from data_contracts import Manifest
from data_contracts.foreign_text import line
from stages.reporting.funnel import Step, funnel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Rows = Sequence[Mapping[str, Any]]

BLUE, ORANGE, GREY, LIGHT, INK = "#2f6db3", "#d9772b", "#8a8f98", "#e3e6ea", "#24292f"
POINTS = 400  # of a curve on a page
LOST = ["#d9772b", "#e6a06b", "#eec4a3", "#f3dccb", "#f7ebe2"]  # the reasons, most first
STYLE: Any = {
    "font.family": "DejaVu Sans", "font.size": 9, "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": GREY, "xtick.color": GREY,
    "ytick.color": INK, "axes.spines.top": False, "axes.spines.right": False, "axes.titleweight": "bold", "axes.titlesize": 10,
    "axes.titlelocation": "left", "svg.fonttype": "path", "svg.hashsalt": "groundup",
    "text.parse_math": False,  # text of manifests and tables is text: a lone $ would be an error
}  # fmt: skip


def funnel_svg(manifests: Iterable[Manifest]) -> str:
    """Documents kept and lost by each data stage."""
    return _drawn(lambda figure: draw_funnel(figure, funnel(manifests)))


def loss_svg(rows: Rows) -> str:
    """Training and held-out loss over the steps of one training (rows of a metrics table; columns may be absent).

    Of a long training every so manieth step, and each with a held-out loss: a page gets this picture again and again.
    """
    every = math.ceil(len(rows) / POINTS) or 1
    kept = [
        row
        for number, row in enumerate(rows, 1)
        if number % every == 0 or number == len(rows) or row.get("heldout_loss") is not None
    ]
    return losses_svg({"": kept})


def losses_svg(trainings: Mapping[str, Rows]) -> str:
    """The same for several trainings, side by side, with every step."""
    return _drawn(lambda figure: draw_losses(figure, trainings))


def scores_svg(rows: Rows) -> str:
    """Scores beside their baselines (rows of a scores table); those without a value or a baseline are left out."""
    return _drawn(lambda figure: draw_scores(figure, rows))


def draw_funnel(figure: Figure, steps: Sequence[Step]) -> None:
    """One bar for each stage: what it kept, then what it lost by reason."""
    figure.set_size_inches(8, 0.9 + 0.75 * max(1, len(steps)))
    axes = figure.subplots()
    if not steps:
        return _nothing(axes, "no data stage among the inputs")
    widest = max(step.rows_kept + step.rows_lost for step in steps) or 1
    for place, step in enumerate(steps):
        axes.barh(place, step.rows_kept, color=BLUE, height=0.42)
        left = step.rows_kept
        for number, lost in enumerate(step.lost.values()):
            axes.barh(place, lost, left=left, color=LOST[min(number, len(LOST) - 1)], height=0.42)
            left += lost
        kept = " + ".join(f"{count:,} {line(table)}" for table, count in step.kept.items())
        told = ", ".join(f"{line(reason)} {lost:,}" for reason, lost in list(step.lost.items())[:4])
        more = len(step.lost) - 4
        lost_text = (
            f"   lost {step.rows_lost:,}: {told}{f', {more} more reasons' if more > 0 else ''}"
            if step.lost
            else ""
        )
        axes.text(0, place - 0.29, kept + lost_text, va="bottom", fontsize=8, color=INK)
    axes.set_yticks(range(len(steps)), [step.stage for step in steps], fontweight="bold")
    axes.set_ylim(len(steps) - 0.6, -0.7)
    axes.set_xlim(0, widest * 1.02)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_title("Documents kept (blue) and lost (orange), stage by stage")
    return None


def draw_losses(figure: Figure, trainings: Mapping[str, Rows]) -> None:
    """One panel for each training; a gap where a step was skipped."""
    trainings = {name: rows for name, rows in trainings.items() if rows}
    figure.set_size_inches(max(6.0, 3.6 * len(trainings)), 3.2)
    if not trainings:
        return _nothing(figure.subplots(), "no training metrics among the inputs")
    for axes, (name, rows) in zip(
        figure.subplots(1, len(trainings), squeeze=False)[0], trainings.items(), strict=True
    ):
        for (steps, values), label, style in (
            (_points(rows, "loss"), "training", {"color": BLUE}),
            (
                _points(rows, "heldout_loss"),
                "held-out",
                {"color": ORANGE, "marker": "o", "markersize": 3.5},
            ),
        ):
            if values:
                axes.plot(
                    steps, values, linewidth=1.1, label=f"{label}, last {values[-1]:.3g}", **style
                )
        axes.set_title(name or "Loss")
        axes.set_xlabel("step")
        axes.set_ylabel("loss (nats)")
        axes.grid(axis="y", color=LIGHT, linewidth=0.8)
        axes.margins(x=0.08)
        if axes.lines:
            axes.legend(frameon=False, fontsize=8)
    return None


def draw_scores(figure: Figure, rows: Rows) -> None:
    """A dot with two standard errors for each score, a line for its baseline."""
    kept = [row for row in rows if row.get("value") is not None and row.get("baseline") is not None]
    figure.set_size_inches(7, 0.9 + 0.42 * max(1, len(kept)))
    axes = figure.subplots()
    if not kept:
        return _nothing(axes, "no score with a baseline")
    for place, row in enumerate(kept):
        axes.errorbar(
            row["value"],
            place,
            xerr=2 * (row.get("stderr") or 0),
            fmt="o",
            color=BLUE,
            capsize=3,
            markersize=5,
        )
        axes.plot([row["baseline"]] * 2, [place - 0.3, place + 0.3], color=ORANGE, linewidth=2)
        label = line(row["baseline_name"] or "")
        beside: dict[str, Any] = {"textcoords": "offset points", "fontsize": 7, "color": ORANGE}
        axes.annotate(label, (row["baseline"], place - 0.3), (3, 0), **beside)
    axes.set_yticks(range(len(kept)), [line(f"{row['task']}  {row['metric']}") for row in kept])
    axes.set_ylim(len(kept) - 0.4, -0.6)
    axes.set_xlim(left=0)
    axes.grid(axis="x", color=LIGHT, linewidth=0.8)
    axes.set_title("Scores with two standard errors, beside their baselines (orange)")
    return None


def _points(rows: Rows, column: str) -> tuple[list[int], list[float]]:
    kept = [
        (row["step"], row[column])
        for row in rows
        if row.get(column) is not None and math.isfinite(row[column])
    ]
    return [step for step, _ in kept], [value for _, value in kept]


def _nothing(axes: Axes, text: str) -> None:
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, ha="center", va="center", color=GREY, transform=axes.transAxes)


def _drawn(draw: Any) -> str:
    from matplotlib import rc_context  # half a second that pages without pictures need not wait for
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": "groundup"})
    return out.getvalue()
