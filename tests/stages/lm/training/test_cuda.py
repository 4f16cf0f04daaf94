"""What only a GPU can show: compiled blocks, bfloat16 and its own kernels."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch

from data_contracts import Interrupted
from stages.lm.generate import generate
from stages.lm.model import LanguageModel
from stages.lm.parallel import fsdp
from stages.lm.training.config import Compute
from stages.lm.training.loop import Fitted, fit
from stages.report import Report
from tests.stages.lm import tiny
from tests.stages.lm.training.test_loop import RecordingReport, same_bits

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]


def train(
    scratch: Path, steps: int, compute: Compute, report: Report | None = None
) -> tuple[LanguageModel, Fitted]:
    model = fsdp.shard_model(tiny.model(loud=False), compute)
    made = fit(
        model,
        tiny.Repeated(),
        tiny.next_token,
        training=tiny.training(),
        compute=compute,
        steps=steps,
        scratch=scratch,
        report=report or Report(),
        guard={"seed": 0},
    )
    return model, made


def test_compiled_blocks_in_bfloat16_learn_what_plain_ones_in_float32_do(tmp_path: Path) -> None:
    _, plain = train(tmp_path / "a", 3, tiny.compute())
    _, compiled = train(tmp_path / "b", 3, tiny.compute(compile="on", precision="auto"))
    assert compiled.figures["devices"] == "1 x cuda"
    assert compiled.figures["compile_seconds"] is not None, compiled.notes
    assert [row["loss"] for row in compiled.metrics] == pytest.approx(
        [row["loss"] for row in plain.metrics], rel=2e-2
    )


def test_a_stopped_run_continues_to_the_same_bits(tmp_path: Path) -> None:
    compute = tiny.compute(precision="auto")
    whole, _ = train(tmp_path / "a", 6, compute)
    with pytest.raises(Interrupted, match="after step 3 of 6"):
        train(
            tmp_path / "b",
            6,
            compute,
            RecordingReport(3, lambda: os.kill(os.getpid(), signal.SIGTERM)),
        )
    again, _ = train(tmp_path / "b", 6, compute)
    assert same_bits(whole, again)


def test_greedy_text_is_that_of_the_cpu() -> None:
    prompts = [[1, 2, 3], [4], [5, 6, 7, 8, 9, 10, 11]]
    wanted = generate(tiny.model(tied_embeddings=False), prompts, max_new_tokens=20)
    assert (
        generate(tiny.model(tied_embeddings=False).to("cuda"), prompts, max_new_tokens=20) == wanted
    )
