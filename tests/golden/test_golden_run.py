"""Recipe smoke on made-up pages makes what `recorded.json` has: the same ids, the same bytes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.golden import run

RECORDED: dict[str, Any] = json.loads(run.RECORDED.read_text("utf-8"))
HOW = (
    "if results were meant to change: raise the stage's version, then"
    " python -m tests.golden.run --record"
)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run.run(tmp_path_factory.mktemp("golden"), run.SAME_EVERYWHERE)


@pytest.mark.slow
def test_every_stage_of_the_golden_run_has_the_id_that_was_recorded(found):
    assert found["ids"] == RECORDED["ids"], HOW
    ids = {name: made["id"] for name, made in found["made"].items()}
    assert ids == {name: made["id"] for name, made in RECORDED["made"].items()}, HOW


@pytest.mark.slow
@pytest.mark.parametrize("name", run.SAME_EVERYWHERE)
def test_a_stage_of_the_golden_run_makes_the_bytes_that_were_recorded(found, name):
    made, recorded = found["made"][name], RECORDED["made"][name]
    assert made["rows"] == recorded["rows"], HOW
    if run.releases() != RECORDED["releases"]:
        pytest.skip("other releases of the packages that write: their bytes may differ")
    assert made["files"] == recorded["files"], HOW
