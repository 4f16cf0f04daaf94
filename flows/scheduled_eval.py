"""Evaluations that come back by themselves. Each carries its logical date, so that reuse never turns one into nothing."""

from __future__ import annotations

from datetime import UTC, datetime

from prefect import flow
from prefect.runtime import flow_run

from data_contracts import Artifact, Store
from flows import lineage
from flows.home import open_store
from flows.prefect_host import run_page
from flows.stage_flows import FLOWS


@flow(name="scheduled-eval", flow_run_name="{name} scores")
def scheduled_eval(name: str = "demo", overrides: list[str] = [], as_of: str = "") -> str:  # noqa: B006
    """Evaluate the model that `name` holds, on the items that its training documents were cleaned of.

    Args:
        name: Whose dpo_checkpoint to take.
        overrides: Settings to change, e.g. tasks=[arc_easy]
        as_of: The logical date; empty: the time this run was scheduled for.
    """
    run_page.whole()
    store = open_store()
    inputs = of_its_lineage(store, store.find(f"{name}/dpo_checkpoint"))
    made = FLOWS["evaluate"](
        name=name, overrides=overrides, inputs=inputs, as_of=as_of or logical_date()
    )
    run_page.show_whole(name, store)
    return made


def of_its_lineage(store: Store, model: Artifact) -> dict[str, str]:
    """What to evaluate a model with: the items that its documents were cleaned of, and the checkpoint that it was tuned from.

    Not what its name holds now: while a run is under way, or stopped, that may be the exam of a newer corpus, and the model may
    have been trained on its pages. Raises ArtifactError if the exam cannot be told, because something upstream is gone.
    """
    makers = {"collect_evals": "eval_items", "pretrain": "base_checkpoint"}
    found = {
        makers[one.manifest.stage]: str(one)
        for one in lineage.present(store, model)
        if one.manifest.stage in makers
    }
    if "eval_items" not in found:
        lineage.upstream(store, model)  # raises, and names what is gone
    return found


def logical_date() -> str:
    """The time for which this run was scheduled, to the second, in UTC: the same however late it starts or often it is retried."""
    scheduled = flow_run.scheduled_start_time or datetime.now(UTC)
    return scheduled.astimezone(UTC).isoformat(timespec="seconds")
