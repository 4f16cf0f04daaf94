"""How long a run will take on this machine, per stage, said before the first stage starts.

Three sources, the best first: an earlier run of the stage in the same store; for trainings, a few of
their own steps (about a second); for the other stages of a recipe that ships, what they took on a
reference machine, scaled by the speed of this one. What none of them knows is left open.
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
from flows.cli.console import clock
from flows.preview import Step
from stages.execution.cores import cores
from stages.lm.config import ModelConfig

TRAININGS = ("pretrain", "sft")
REFERENCE_PROBE = 0.050  # seconds of `_probe_python` on the machine of the recipes' `seconds`
REFERENCE_CORES = 2
PARALLEL_SHARE = 0.6  # of the data stages' time, which more cores shorten
SHOWN = 4  # stages that the sentence names


@dataclass(frozen=True)
class Expected:
    """What one stage will take. seconds: None if nothing is known. source: where the figure comes from."""

    stage: str
    seconds: float | None
    source: str


def forecast(store: Store, steps: Sequence[Step], reference: Mapping[str, float]) -> list[Expected]:
    """The stages that will be built, with the time that each will take.

    Args:
        store: Where earlier runs are looked up.
        steps: The plan; stages that are not built take no time and are left out.
        reference: Seconds of stages on the reference machine, from the recipe.
    """
    planned = [step for step in steps if step.status == "build"]
    earlier = _earlier(store)
    slowness = _slowness() if any(step.stage.name in reference for step in planned) else 1.0
    found = []
    for step in planned:
        name = step.stage.name
        flops = _flops(step, steps)
        if (old := earlier.get(name)) and (seconds := _as_earlier(old, step, flops)) is not None:
            found.append(Expected(name, seconds, "an earlier run"))
        elif flops and (seconds := _probed(step, steps)) is not None:
            found.append(Expected(name, seconds, "a few steps of it"))
        elif name in reference:
            found.append(Expected(name, reference[name] * slowness, "a run elsewhere"))
        else:
            found.append(Expected(name, None, ""))
    return found


def sentence(expected: Sequence[Expected]) -> str:
    """ "about 6 minutes on this machine: pretrain 3:05, sft 1:02, …", or "" if nothing is known."""
    known = [(one.stage, one.seconds) for one in expected if one.seconds is not None]
    unknown = [one.stage for one in expected if one.seconds is None]
    total = sum(seconds for _, seconds in known)
    if not known or total < 1:
        return ""
    known.sort(key=lambda one: -one[1])
    parts = [f"{stage} {clock(seconds)}" for stage, seconds in known[:SHOWN]]
    if rest := known[SHOWN:]:
        parts.append(f"{len(rest)} others {clock(sum(seconds for _, seconds in rest))}")
    text = f"about {_duration(total)} on this machine: {', '.join(parts)}"
    return f"{text}; not known beforehand: {', '.join(unknown)}" if unknown else text


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{math.ceil(seconds / 5) * 5} seconds"
    if seconds < 100 * 60:
        return f"{round(seconds / 60)} minutes"
    return f"{seconds / 3600:.1f} hours"


def _earlier(store: Store) -> dict[str, Manifest]:
    """The newest artifact of each stage that any run of the store points at."""
    newest: dict[str, Manifest] = {}
    for name in store.refs.runs():
        for ref in store.refs.outputs(name).values():
            if not store.has(ref.artifact_type, ref.id):
                continue
            manifest = store.open(ref.artifact_type, ref.id, verify=False).manifest
            old = newest.get(manifest.stage)
            if old is None or old.finished < manifest.finished:
                newest[manifest.stage] = manifest
    return newest


def _as_earlier(old: Manifest, step: Step, flops: float | None) -> float | None:
    """What the stage will take by an earlier run; None if that was another amount of work."""
    started, finished = (datetime.fromisoformat(text) for text in (old.started, old.finished))
    seconds = (finished - started).total_seconds()
    figures = old.facts.get("figures", {})
    if not flops:
        return (
            seconds
            if old.config == step.identity.config or step.stage.name not in TRAININGS
            else None
        )
    rate, trained = figures.get("gflops_per_second"), figures.get("training_seconds")
    if not rate or trained is None or old.config.get("model") != step.identity.config.get("model"):
        return None  # another size runs at another rate
    return flops / (rate * 1e9) + max(0.0, seconds - trained)


def _flops(step: Step, steps: Sequence[Step]) -> float | None:
    """FLOPs of a training whose steps are known beforehand; None for other stages."""
    work = _work(step, steps)
    if work is None:
        return None
    model, count, tokens = work
    return count * tokens * model.flops_per_token()


def _work(step: Step, steps: Sequence[Step]) -> tuple[ModelConfig, int, float] | None:
    """(model, optimizer steps, tokens of a step) of a training; None if one of them is not known yet."""
    if step.stage.name not in TRAININGS:
        return None
    configs: dict[str, Any] = {one.stage.name: one.config for one in steps}
    if not {"pretrain", "train_tokenizer"} <= configs.keys():
        return None
    sizes = configs["pretrain"].model.model_dump()
    model = ModelConfig(vocab_size=configs["train_tokenizer"].vocabulary_size, **sizes)
    training = configs[step.stage.name].training
    if training.duration_in == "epochs":
        return None
    count = training.steps(model.context, rows_per_epoch=1)
    return model, count, float(training.batch_size * model.context)


def _probed(step: Step, steps: Sequence[Step]) -> float | None:
    """What a training will take by a few of its steps, made here and now."""
    work = _work(step, steps)
    if work is None:
        return None
    from stages.lm.training.probe import (
        training_seconds,
    )  # torch: two seconds, which the training needs anyway

    model, count, tokens = work
    config: Any = step.config
    try:
        return training_seconds(model, config.training, config.compute, count, tokens)
    except (
        ConfigError,
        RuntimeError,
    ):  # what the settings ask for is not here: the stage itself says so
        return None


def _slowness() -> float:
    """How much longer this machine takes for data stages than the reference machine."""
    count = min(cores(), 16)
    parallel = PARALLEL_SHARE * REFERENCE_CORES / count + 1 - PARALLEL_SHARE
    return parallel * _probe_python() / REFERENCE_PROBE


def _probe_python() -> float:
    """Seconds that this process takes for a fixed piece of what data stages do: the best of eight."""
    text = " ".join(
        f"<p class='n{number}'>Return the value of item {number * 7919 % 1000}.</p>"
        for number in range(20000)
    )
    times = []
    for _ in range(8):
        started = time.perf_counter()
        words = re.findall(r"\w+", re.sub(r"<[^>]*>", " ", text))
        counts = Counter(words)
        shingles = {hash(tuple(words[at : at + 5])) for at in range(len(words) - 4)}
        sorted(counts.items(), key=lambda one: (-one[1], one[0]))
        times.append(time.perf_counter() - started)
        assert shingles
    return min(times)
