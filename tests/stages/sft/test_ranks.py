from __future__ import annotations

import pytest

from tests.golden import dpo, sft

TWO = {"devices": 2, "precision": "float32"}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "golden"), [("sft", sft), ("dpo", dpo)])
def test_two_ranks_train_what_one_does(run, publish, name, golden):
    given = golden.inputs(publish)
    one = run(name, golden.SETTINGS | {"seed": 1}, **given)
    two = run(
        name,
        golden.SETTINGS
        | {
            "seed": 1,
            "training": golden.SETTINGS["training"] | {"stability": {"spike_threshold": 21.0}},
            "compute": TWO,
        },
        **given,
    )
    assert two.manifest.facts["figures"]["devices"] == "2 x cpu"
    losses = [[row["loss"] for row in made.read("metrics").to_pylist()] for made in (one, two)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
