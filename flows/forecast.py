"""How long each stage will take on this machine, stated before the first stage starts.

There are three sources. The best is an earlier run of the stage in the same store. For trainings,
the next best is a few of their own steps, which take about a second. For the other stages of a
recipe that ships, it is the time that they took on a reference machine, scaled by the speed of this
one. What no source knows is left open.
"""

from __future__ import annotations

import math
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from data_contracts import ConfigError, Store
from data_contracts.store.artifact import Manifest
from flows.cli.console import clock, plural
from flows.preview import PlannedStage
from stages.execution.cores import cores
from stages.lm.config import ModelConfig

TRAININGS = ("pretrain", "sft")
REFERENCE_PROBE = 0.050  # seconds of `_probe_python` on the machine of the recipes' `seconds`
REFERENCE_CORES = 2
MAX_CORES = 16  # more of them make data stages no faster
PARALLEL_SHARE = 0.6  # of the data stages' time, which more cores shorten
SHOWN = 4  # stages that the sentence names
SHINGLE_WORDS = 5


@dataclass(frozen=True)
class Expected:
    """How long one stage will take.

    Attributes:
        stage: The stage.
        seconds: The time; None if nothing is known.
        source: Where the figure comes from, for people.
    """

    stage: str
    seconds: float | None
    source: str


@dataclass(frozen=True)
class TrainingWork:
    """The work of a training that is known before it starts.

    Attributes:
        model: The model.
        steps: The number of optimizer steps.
        step_tokens: The number of tokens in each of them.
    """

    model: ModelConfig
    steps: int
    step_tokens: float

    @property
    def flops(self) -> float:
        """Floating-point operations in total."""
        return self.steps * self.step_tokens * self.model.flops_per_token()


def forecast(
    store: Store, planned: Sequence[PlannedStage], reference: Mapping[str, float]
) -> list[Expected]:
    """Estimate the time of every stage that will be built.

    Args:
        store: Where earlier runs are looked up.
        planned: The plan. Stages that are not built take no time and are left out.
        reference: Seconds of stages on the reference machine, from the recipe.
    """
    to_build = [planned_stage for planned_stage in planned if planned_stage.status == "build"]
    earlier = _earlier_manifests(store)
    slowness = 1.0
    if any(planned_stage.stage.name in reference for planned_stage in to_build):
        slowness = _slowness()
    return [
        _expected(planned_stage, planned, earlier, reference, slowness)
        for planned_stage in to_build
    ]


def _expected(
    planned_stage: PlannedStage,
    planned: Sequence[PlannedStage],
    earlier: Mapping[str, Manifest],
    reference: Mapping[str, float],
    slowness: float,
) -> Expected:
    """Return the time of one stage by the best source that has one."""
    name = planned_stage.stage.name
    work = _training_work(planned_stage, planned)
    if name in earlier:
        seconds = _seconds_as_earlier(earlier[name], planned_stage, work)
        if seconds is not None:
            return Expected(name, seconds, "an earlier run")
    if work:
        seconds = _probed_seconds(planned_stage, work)
        if seconds is not None:
            return Expected(name, seconds, "a few steps of it")
    if name in reference:
        return Expected(name, reference[name] * slowness, "a run elsewhere")
    return Expected(name, None, "")


def sentence(expected: Sequence[Expected]) -> str:
    """Summarise the times: "about 6 minutes on this machine: pretrain 3:05, sft 1:02, …".

    Returns:
        The sentence, or "" if nothing is known.
    """
    known: dict[str, float] = {}
    unknown = []
    for one in expected:
        if one.seconds is None:
            unknown.append(one.stage)
        else:
            known[one.stage] = one.seconds
    total = sum(known.values())
    if total < 1:
        return ""
    longest_first = sorted(known, key=known.__getitem__, reverse=True)
    parts = [f"{stage} {clock(known[stage])}" for stage in longest_first[:SHOWN]]
    others = longest_first[SHOWN:]
    if others:
        other_seconds = sum(known[stage] for stage in others)
        parts.append(f"{plural(len(others), 'other')} {clock(other_seconds)}")
    text = f"about {_duration(total)} on this machine: {', '.join(parts)}"
    if unknown:
        text += f"; not known beforehand: {', '.join(unknown)}"
    return text


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{math.ceil(seconds / 5) * 5} seconds"
    if seconds < 100 * 60:
        return f"{round(seconds / 60)} minutes"
    return f"{seconds / 3600:.1f} hours"


def _earlier_manifests(store: Store) -> dict[str, Manifest]:
    """Return the newest artifact of each stage that any run of the store points at."""
    newest: dict[str, Manifest] = {}
    for name in store.refs.runs():
        for ref in store.refs.outputs(name).values():
            if not store.has(ref.artifact_type, ref.id):
                continue
            manifest = store.open(ref.artifact_type, ref.id, verify=False).manifest
            known = newest.get(manifest.stage)
            if known is None or known.finished < manifest.finished:
                newest[manifest.stage] = manifest
    return newest


def _seconds_as_earlier(
    earlier: Manifest, planned_stage: PlannedStage, work: TrainingWork | None
) -> float | None:
    """Return the time that an earlier run predicts; None if that was other work."""
    started = datetime.fromisoformat(earlier.started)
    finished = datetime.fromisoformat(earlier.finished)
    seconds = (finished - started).total_seconds()
    if work is None:
        is_training = planned_stage.stage.name in TRAININGS
        if is_training and earlier.config != planned_stage.identity.config:
            return None
        return seconds
    if earlier.config.get("model") != planned_stage.identity.config.get("model"):
        return None  # another size runs at another rate
    figures = earlier.facts.get("figures", {})
    rate, training_seconds = figures.get("gflops_per_second"), figures.get("training_seconds")
    if not rate or training_seconds is None:
        return None
    return work.flops / (rate * 1e9) + max(0.0, seconds - training_seconds)


def _training_work(
    planned_stage: PlannedStage, planned: Sequence[PlannedStage]
) -> TrainingWork | None:
    """Return the work of a training; None for other stages, and if it is not known beforehand."""
    if planned_stage.stage.name not in TRAININGS:
        return None
    configs: dict[str, Any] = {one.stage.name: one.config for one in planned}
    if not {"pretrain", "train_tokenizer"} <= configs.keys():
        return None
    training = configs[planned_stage.stage.name].training
    if training.duration_in == "epochs":
        return None
    sizes = configs["pretrain"].model.model_dump()
    model = ModelConfig(vocab_size=configs["train_tokenizer"].vocabulary_size, **sizes)
    return TrainingWork(
        model=model,
        steps=training.steps(model.context, rows_per_epoch=1),
        step_tokens=float(training.batch_size * model.context),
    )


def _probed_seconds(planned_stage: PlannedStage, work: TrainingWork) -> float | None:
    """Return how long a training will take, by a few of its steps, which run here and now."""
    # Imports torch, which takes two seconds. The training needs it anyway.
    from stages.lm.training.probe import training_seconds

    config: Any = planned_stage.config
    try:
        return training_seconds(
            work.model, config.training, config.compute, work.steps, work.step_tokens
        )
    except (ConfigError, RuntimeError):
        return None  # the machine lacks what the settings ask for; the stage itself reports it


def _slowness() -> float:
    """Return how many times slower data stages are here than on the reference machine."""
    count = min(cores(), MAX_CORES)
    parallel = PARALLEL_SHARE * REFERENCE_CORES / count + 1 - PARALLEL_SHARE
    return parallel * _probe_python() / REFERENCE_PROBE


def _probe_python() -> float:
    """Return the seconds of a fixed piece of work, as data stages do it: the best of eight."""
    text = " ".join(
        f"<p class='n{number}'>Return the value of item {number * 7919 % 1000}.</p>"
        for number in range(20000)
    )
    times = []
    for _ in range(8):
        started = time.perf_counter()
        words = re.findall(r"\w+", re.sub(r"<[^>]*>", " ", text))
        counts = Counter(words)
        starts = range(len(words) - SHINGLE_WORDS + 1)
        shingles = {hash(tuple(words[start : start + SHINGLE_WORDS])) for start in starts}
        sorted(counts.items(), key=lambda one: (-one[1], one[0]))
        times.append(time.perf_counter() - started)
        assert shingles
    return min(times)
