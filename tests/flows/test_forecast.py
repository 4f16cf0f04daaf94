"""How long a run will take: from earlier runs, from a probe, or from the recipe's own figures."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data_contracts import ConfigError, Store
from flows import forecast, preview, recipe
from flows.forecast import Expected, sentence
from stages.lm.config import ModelConfig
from stages.lm.training import probe
from stages.lm.training.config import Compute, Training


@pytest.fixture
def plan(store: Store) -> list[preview.PlannedStage]:
    return preview.plan_run(store, "demo", recipe.load("smoke").configs)


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, float]]:
    """Trainings take 100 s; the steps and tokens that were asked for."""
    asked: list[tuple[int, float]] = []

    def seconds(model: Any, training: Any, compute: Any, steps: int, tokens: float) -> float:
        asked.append((steps, tokens))
        return 100.0

    monkeypatch.setattr("stages.lm.training.probe.training_seconds", seconds)
    return asked


def by_stage(found: list[Expected]) -> dict[str, tuple[float | None, str]]:
    return {one.stage: (one.seconds, one.source) for one in found}


def test_trainings_are_probed_and_the_rest_comes_from_the_recipe_scaled_by_this_machine(
    store: Store,
    plan: list[preview.PlannedStage],
    probed: list[tuple[int, float]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(forecast, "_slowness", lambda: 2.0)
    found = by_stage(forecast.forecast(store, plan, {"crawl": 5.0, "pretrain": 1.0}))
    assert found["pretrain"] == found["sft"] == (100.0, "a few steps of it")
    assert probed == [(120, 16 * 128.0), (30, 12 * 128.0)]
    assert found["crawl"] == (10.0, "a run elsewhere")
    assert found["clean"] == (None, "")


def test_a_training_that_cannot_be_probed_is_left_open_and_the_stage_itself_says_why(
    store: Store, plan: list[preview.PlannedStage], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any) -> float:
        raise ConfigError(
            "compute.precision = 'bfloat16'",
            "this CPU has no bfloat16 instructions",
            "use auto or float32",
        )

    monkeypatch.setattr("stages.lm.training.probe.training_seconds", refused)
    assert by_stage(forecast.forecast(store, plan, {}))["pretrain"] == (None, "")


class Earlier:
    """A store in which some stages were run before, for so many seconds each."""

    def __init__(
        self,
        plan: list[preview.PlannedStage],
        seconds: Mapping[str, int],
        figures: Mapping[str, float],
    ):
        self.refs = self
        self._made = {
            planned_stage.stage.output: planned_stage
            for planned_stage in plan
            if planned_stage.stage.name in seconds
        }
        self._seconds, self._figures = seconds, figures

    def runs(self) -> list[str]:
        return ["demo"]

    def outputs(self, name: str) -> dict[str, Any]:
        return {output: Ref(output) for output in self._made}

    def has(self, artifact_type: str, id: str) -> bool:
        return True

    def open(self, artifact_type: str, id: str, verify: bool) -> Any:
        planned_stage = self._made[artifact_type]
        return Opened(planned_stage, self._seconds[planned_stage.stage.name], self._figures)


class Ref:
    def __init__(self, output: str):
        self.artifact_type, self.id = output, "0"


class Opened:
    def __init__(
        self, planned_stage: preview.PlannedStage, seconds: int, figures: Mapping[str, float]
    ):
        self.manifest = self
        self.stage, self.config = planned_stage.stage.name, planned_stage.identity.config
        self.settings = planned_stage.config.model_dump(mode="json")
        self.started, self.finished = (
            "2026-01-01T00:00:00+00:00",
            f"2026-01-01T00:{seconds // 60:02d}:{seconds % 60:02d}+00:00",
        )
        self.facts = {"figures": figures}


def test_an_earlier_run_in_the_store_is_believed_before_all_else(
    plan: list[preview.PlannedStage], probed: list[tuple[int, float]]
) -> None:
    model = ModelConfig(
        vocab_size=768, width=64, layers=2, heads=2, kv_heads=2, ffn_width=192, context=128
    )
    flops = 120 * 16 * 128 * model.flops_per_token()
    figures = {
        "gflops_per_second": flops / 50 / 1e9,
        "training_seconds": 40.0,
    }  # trained half as long as it will now
    earlier: Any = Earlier(plan, {"crawl": 7, "pretrain": 43}, figures)
    found = by_stage(forecast.forecast(earlier, plan, {"crawl": 5.0}))
    assert found["crawl"] == (7.0, "an earlier run")
    seconds, source = found["pretrain"]
    assert source == "an earlier run"
    assert seconds == pytest.approx(50 + 3)
    assert probed == [(30, 12 * 128.0)], "sft alone"


def test_a_stage_that_is_up_to_date_takes_no_time(
    store: Store, plan: list[preview.PlannedStage], probed: list[tuple[int, float]]
) -> None:
    done = [replace(planned_stage, status="up to date") for planned_stage in plan]
    assert forecast.forecast(store, done, {"crawl": 5.0}) == []
    assert sentence([]) == ""


def test_the_sentence_gives_the_sum_the_longest_stages_and_what_nobody_knows() -> None:
    expected = [
        Expected("pretrain", 185.0, ""),
        Expected("crawl", 38.0, ""),
        Expected("sft", 62.0, ""),
        Expected("dpo", 2.0, ""),
        Expected("clean", 13.0, ""),
        Expected("evaluate", 25.0, ""),
        Expected("dedup", None, ""),
    ]
    assert sentence(expected) == (
        "about 5 minutes on this machine: pretrain 3:05, sft 1:02, crawl 0:38, evaluate 0:25,"
        " 2 others 0:15; not known beforehand: dedup"
    )
    assert sentence([Expected("dedup", None, "")]) == ""
    assert sentence([Expected("laptop", 3 * 3600.0, "")]).startswith("about 3.0 hours")


def test_a_probe_takes_the_time_of_a_few_steps_and_scales_it_by_work() -> None:
    model = ModelConfig(
        vocab_size=97, width=32, layers=2, heads=4, kv_heads=4, ffn_width=48, context=16
    )
    compute = Compute.model_validate({"threads": 1, "precision": "float32", "compile": "off"})
    few, many = (
        probe.training_seconds(model, Training(), compute, steps, 8 * 16.0) for steps in (10, 1000)
    )
    assert few > 0
    assert many == pytest.approx(100 * few), "the same model is probed once"


@pytest.mark.parametrize(
    ("seconds", "wanted"),
    [
        ([0.2, 0.2, 0.2], False),  # too few
        ([0.01] * 10, False),  # too short
        ([0.2, 0.2, 0.2, 0.2], True),
        ([0.4, 0.3, 0.2, 0.3, 0.2], False),  # other work slowed all but two
        ([0.4, 0.3, 0.2, 0.3, 0.2, 0.205], True),
        ([0.4, 0.8] * 4, True),  # four seconds are enough
    ],
)
def test_a_probe_goes_on_until_other_work_no_longer_slows_its_steps(
    seconds: list[float], wanted: bool
) -> None:
    assert probe._are_enough(seconds) is wanted


def test_a_large_model_is_probed_with_fewer_rows_and_layers() -> None:
    model = ModelConfig(
        vocab_size=32768, width=768, layers=12, heads=12, kv_heads=4, ffn_width=2048, context=1024
    )
    rows, small = probe._probed_size(model, 512 * 1024.0, "cpu")
    assert (rows, small.layers) == (1, 1)
    tiny = ModelConfig(
        vocab_size=4096, width=96, layers=4, heads=3, kv_heads=3, ffn_width=264, context=256
    )
    assert probe._probed_size(tiny, 8 * 256.0, "cpu") == (8, tiny)


@pytest.mark.parametrize("name", ["smoke", "tiny", "laptop"])
def test_recipes_that_ship_with_their_pages_say_what_their_stages_take(name: str) -> None:
    loaded = recipe.load(name)
    assert set(loaded.seconds) == set(loaded.configs) - set(forecast.TRAININGS)


def test_of_other_pages_than_the_recipes_nothing_is_known() -> None:
    assert recipe.load("tiny", ["crawl.sources=[{kind: files, paths: [a.md]}]"]).seconds == {}


def test_seconds_of_a_stage_that_there_is_not_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("extends: tiny\nseconds: {crawling: 3}\n")
    with pytest.raises(ConfigError, match=re.escape("line 2: seconds is {'crawling': 3}")):
        recipe.load(str(path))
