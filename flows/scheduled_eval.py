"""Evaluations on a schedule.

Each has the logical date for which it was scheduled. So it is a result of its own, and never taken
for an earlier one.
"""

from __future__ import annotations

from datetime import UTC, datetime

from prefect import flow
from prefect.runtime import flow_run

from data_contracts import Artifact, Store
from flows import lineage
from flows.home import open_store
from flows.prefect_host import run_page
from flows.stage_flows import FLOWS

OUTPUTS = {
    "collect_evals": "eval_items",
    "pretrain": "base_checkpoint",
}  # by the stage that makes it


@flow(name="scheduled-eval", flow_run_name="{name} scores")
def scheduled_eval(
    name: str = "demo",
    overrides: list[str] = [],  # noqa: B006  never changed
    as_of: str = "",
) -> str:
    """Evaluate the model of a run, on the items that its training documents were cleaned of.

    Args:
        name: The run whose dpo_checkpoint to evaluate.
        overrides: Settings to change, e.g. tasks=[arc_easy]
        as_of: The logical date; if empty, the time for which this run was scheduled.
    """
    run_page.whole()
    store = open_store()
    inputs = inputs_for(store, store.find(f"{name}/dpo_checkpoint"))
    date = as_of or logical_date()
    reference = FLOWS["evaluate"](name=name, overrides=overrides, inputs=inputs, as_of=date)
    run_page.show_whole(name, store)
    return reference


def inputs_for(store: Store, model: Artifact) -> dict[str, str]:
    """Return the inputs that belong to a model: what it was made from says which they are.

    These may differ from what the run has now. While a run is under way, or stopped, its eval_items
    may come from a newer corpus, and the model may have been trained on their pages.

    Returns:
        References by the name of the input: the items that the training documents were cleaned of,
        and the checkpoint that the model was tuned from.

    Raises:
        ArtifactError: The items cannot be found, because something upstream is missing.
    """
    inputs = {}
    for artifact in lineage.present(store, model):
        output = OUTPUTS.get(artifact.manifest.stage)
        if output:
            inputs[output] = str(artifact)
    if "eval_items" not in inputs:
        lineage.upstream(store, model)  # raises an error that names what is missing
    return inputs


def logical_date() -> str:
    """Return the time for which this run was scheduled, to the second, in UTC.

    It stays the same however late the run starts, and however often it is tried again.
    """
    scheduled = flow_run.scheduled_start_time or datetime.now(UTC)
    return scheduled.astimezone(UTC).isoformat(timespec="seconds")
