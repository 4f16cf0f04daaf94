"""Real torchrun ranks on gloo train as one process does."""

from __future__ import annotations

import json
import os
import signal
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from data_contracts import (
    Artifact,
    ConfigError,
    Draft,
    GroundupError,
    InputError,
    Interrupted,
    Store,
)
from stages.lm.parallel import launch
from stages.lm.precision import matmul_dtype
from stages.lm.training.config import Compute
from stages.pretrain.config import PretrainConfig
from stages.pretrain.stage import run
from stages.report import Report
from tests.golden import pretrain as golden
from tests.stages.lm import rounding
from tests.stages.lm.tiny import SHAPES

pytestmark = pytest.mark.slow


def settings(shape: dict[str, Any] | None = None, **compute: Any) -> dict[str, Any]:
    model = golden.SETTINGS["model"] | (shape or {})
    return golden.SETTINGS | {
        "model": model,
        "compute": {"threads": 1, "precision": "float32"} | compute,
    }


def train(
    store: Store, inputs: dict[str, Artifact], shape: dict[str, Any] | None = None, **compute: Any
) -> tuple[list[dict[str, Any]], dict[str, Tensor], dict[str, Any]]:
    """Train in a separate draft: the number of devices is not part of the identity.

    Returns metrics, weights and figures.
    """
    name = "-".join(f"{key}{value}" for key, value in compute.items())
    draft = Draft.in_folder("checkpoint", store.root / "drafts" / name)
    draft.files.mkdir(parents=True, exist_ok=True)
    facts = run(
        PretrainConfig.parse(settings(shape, **compute), "pretrain"),
        **inputs,
        out=draft,
        report=Report(),
    )
    return (
        pq.read_table(draft.files / "metrics").to_pylist(),
        load_file(draft.files / "model.safetensors"),
        facts.figures,
    )


STEPS, SUMS = 20, 8 * 32 * 64  # of the golden training: steps, and terms of a gradient


def assert_near(
    some: dict[str, Tensor], other: dict[str, Tensor], dtype: torch.dtype = torch.float32
) -> None:
    """Compare weights up to rounding.

    In 20 steps the rounding of bfloat16 grows more than can be predicted. Unrelated weights are
    1.4 apart.
    """
    assert some.keys() == other.keys()
    apart = {name: float((some[name] - other[name]).norm() / other[name].norm()) for name in some}
    bound = rounding.weight_share(STEPS, SUMS) if dtype is torch.float32 else 0.6
    assert max(apart.values()) < bound, apart


BFLOAT16 = matmul_dtype(Compute.model_validate({}), torch.device("cpu")) is torch.bfloat16


@pytest.mark.parametrize(
    ("compute", "shape"),
    [
        ({}, "llama"),
        ({"replicas": 2}, "llama, grouped queries, own output table"),
        ({"replicas": 2, "micro_batch_size": 1}, "qwen3"),
        ({"micro_batch_size": 1}, "qwen3_moe"),
        pytest.param(
            {"precision": "bfloat16"},
            "qwen3",
            marks=pytest.mark.skipif(not BFLOAT16, reason="no bfloat16 instructions"),
        ),
    ],
    ids=str,
)
def test_two_ranks_learn_what_one_learns(
    compute: dict[str, Any], shape: str, store: Store, publish: Any
) -> None:
    inputs = golden.inputs(publish)
    one, weights, _ = train(
        store, inputs, SHAPES[shape], devices=1, precision=compute.get("precision", "float32")
    )
    two, sharded, figures = train(store, inputs, SHAPES[shape], devices=2, **compute)
    assert figures["devices"] == "2 x cpu"
    dtype = getattr(torch, compute.get("precision", "float32"))
    # bfloat16 rounds the factors, in a few tens of products one after another; sums are float32
    share = rounding.gradient_share(64 if dtype is torch.bfloat16 else SUMS, dtype)
    assert two[0]["gradient_norm"] == pytest.approx(one[0]["gradient_norm"], rel=share)
    most = rounding.weight_share(STEPS, SUMS) if dtype is torch.float32 else share
    assert [row["loss"] for row in two] == pytest.approx([row["loss"] for row in one], rel=most)
    assert two[-1]["heldout_bits_per_byte"] == pytest.approx(
        one[-1]["heldout_bits_per_byte"], rel=most
    )
    assert_near(sharded, weights, dtype)


@pytest.mark.parametrize(("first", "then"), [(2, 1), (1, 2)])
def test_ranks_stop_after_a_resume_checkpoint_on_a_signal_and_another_number_of_ranks_continues(
    first: int, then: int, store: Store, publish: Any
) -> None:
    class Stops(Report):
        continued: ClassVar[list[str]] = []

        def progress(self, done: float, total: float | None, unit: str) -> None:
            if done == 7 and not self.continued:
                os.kill(os.getpid(), signal.SIGTERM)

        def note(self, text: str) -> None:
            self.continued += [text] * text.startswith("continuing after step")

    inputs = golden.inputs(publish)
    whole, weights, _ = train(store, inputs, devices=1)
    draft = Draft.in_folder("checkpoint", store.root / "drafts" / "stopped")
    draft.files.mkdir(parents=True)
    with pytest.raises(Interrupted, match="of 20"):
        run(
            PretrainConfig.parse(settings(devices=first), "pretrain"),
            **inputs,
            out=draft,
            report=Stops(),
        )
    (checkpoint,) = (draft.scratch / "safe_points").iterdir()
    digests = json.loads((checkpoint / "state.json").read_text())["files"]
    assert digests.keys() | {"state.json"} == {path.name for path in checkpoint.iterdir()}
    run(
        PretrainConfig.parse(settings(devices=then), "pretrain"),
        **inputs,
        out=draft,
        report=Stops(),
    )
    assert len(Stops.continued) == 1
    metrics = pq.read_table(draft.files / "metrics").to_pylist()
    assert [row["loss"] for row in metrics] == pytest.approx(
        [row["loss"] for row in whole], rel=rounding.weight_share(STEPS, SUMS)
    )
    assert_near(load_file(draft.files / "model.safetensors"), weights)


def test_ranks_wait_for_hours_while_rank_0_works_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def started(*_: Any, timeout: timedelta, **__: Any) -> None:
        raise TimeoutError(timeout)

    (tmp_path / "job.json").write_text(json.dumps({"stage": "pretrain", "config": {}}))
    monkeypatch.setattr(torch.distributed, "init_process_group", started)
    with pytest.raises(TimeoutError) as error:
        launch.main(tmp_path / "job.json")
    assert error.value.args[0] >= timedelta(hours=12)


def test_an_error_of_the_ranks_is_raised_as_it_is(store: Store, publish: Any) -> None:
    with pytest.raises(ConfigError, match="8 rows cannot be shared by 3 devices"):
        train(store, golden.inputs(publish), devices=3)


FAILING = """
import time
from types import SimpleNamespace

import stages
from data_contracts import InputError


def run(config, *, out, report, **inputs):
    from stages.lm.parallel import collectives

    if collectives.rank() == FAILS:
        raise InputError("the seeds", "are rotten", "buy others")
    time.sleep(100)  # like a rank that waits in NCCL for the failed one; longer than the time limit


config_class = SimpleNamespace(parse=lambda *_: None)
stages.stage = lambda name: SimpleNamespace(name=name, config_class=config_class, function=run)
"""


@pytest.mark.parametrize("fails", [0, 1])
@pytest.mark.timeout(300)
def test_an_error_of_one_rank_is_raised_at_once_while_the_others_wait_for_it(
    fails: int, store: Store, publish: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # This replaces the stage in the ranks.
    (tmp_path / "sitecustomize.py").write_text(FAILING.replace("FAILS", str(fails)))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(InputError, match="the seeds: are rotten"):
        train(store, golden.inputs(publish), devices=2)


def test_ranks_import_nothing_from_the_current_folder(
    store: Store, publish: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "random.py").write_text("raise SystemExit('a file of the user')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    with pytest.raises(ConfigError, match="8 rows cannot be shared by 3 devices"):
        train(store, golden.inputs(publish), devices=3)


def test_an_error_of_ranks_that_cannot_start_shows_their_output(
    store: Store, publish: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASTER_PORT", "0")
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "no-such-interface")
    with pytest.raises(GroundupError, match="without a result"):
        train(store, golden.inputs(publish), devices=2)
