"""Evaluations that come back by themselves. Each carries its logical date, so that reuse never turns one into nothing."""

from __future__ import annotations

from datetime import UTC, datetime

from prefect import flow
from prefect.runtime import flow_run

from flows import run_page
from flows.home import open_store
from flows.stage_flows import evaluate


@flow(name="scheduled-eval", flow_run_name="{name} scores")
def scheduled_eval(name: str = "demo", overrides: list[str] = [], as_of: str = "") -> str:  # noqa: B006
    """Evaluate the model that `name` holds.

    Args:
        name: Whose dpo_checkpoint and eval_items to take.
        overrides: Settings to change, e.g. tasks=[arc_easy]
        as_of: The logical date; empty: the time this run was scheduled for.
    """
    run_page.whole()
    made = evaluate(name=name, overrides=overrides, as_of=as_of or logical_date())
    run_page.show_whole(name, open_store())
    return made


def logical_date() -> str:
    """The time for which this run was scheduled, to the second, in UTC: the same however late it starts or often it is retried."""
    scheduled = flow_run.scheduled_start_time or datetime.now(UTC)
    return scheduled.astimezone(UTC).isoformat(timespec="seconds")
