"""Runs one stage of a finished run again and, on request, everything that depends on it."""

from __future__ import annotations

from typing import Literal

from prefect import flow

import stages
from flows.home import open_store
from flows.prefect_host import run_page
from flows.stage_flows import FLOWS

StageName = Literal[stages.NAMES]  # type: ignore[valid-type]


@flow(name="rerun", flow_run_name="{name} {stage} again")
def rerun(
    stage: StageName,
    name: str = "demo",
    overrides: list[str] = [],  # noqa: B006  never changed
    and_after: bool = False,
) -> str:
    """Run one stage of a finished run again.

    All settings stay as they were in this run, except those given here.

    Args:
        stage: The stage to run again.
        name: The name of the run.
        overrides: Settings to change, e.g. threshold=0.7
        and_after: Whether to rebuild everything that depends on the result, too.
    """
    run_page.whole()
    reference = FLOWS[stage](name=name, overrides=overrides, and_after=and_after)
    run_page.show_whole(name, open_store())
    return reference
