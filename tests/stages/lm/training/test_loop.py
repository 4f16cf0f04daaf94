"""The training loop: what it learns, what changes it, how it stops and continues."""

from __future__ import annotations

import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from data_contracts import ConfigError, InputError, Interrupted
from stages.lm.model import LanguageModel
from stages.lm.parallel import collectives
from stages.lm.training import resume
from stages.lm.training.batches import Batch
from stages.lm.training.loop import Fitted, fit
from stages.lm.training.step import Loss, LossFunction
from stages.report import Report
from tests.stages.lm import rounding, tiny


class RecordingReport(Report):
    """Records notes, and calls `act` when step `at` is reached.

    `precision` is the note that every training begins with; `notes` holds the others.
    """

    def __init__(self, at: int | None = None, act: Any = None):
        self.at, self.act, self.notes = at, act, []  # type: ignore[var-annotated]
        self.precision = ""

    def progress(self, done: float, total: float | None, unit: str) -> None:
        if done == self.at:
            self.act()

    def note(self, text: str) -> None:
        if self.precision:
            self.notes.append(text)
        else:
            self.precision = text


class CrashError(Exception):
    pass


def crash() -> None:
    raise CrashError


def train(
    scratch: Path,
    steps: int = 20,
    report: Report | None = None,
    loss: LossFunction = tiny.next_token,
    compute: dict | None = None,
    shape: dict | None = None,
    **settings: Any,
) -> tuple[LanguageModel, Fitted]:
    model = tiny.model(loud=False, **(shape or {}))
    made = fit(
        model,
        tiny.Repeated(),
        loss,
        training=tiny.training(**settings),
        compute=tiny.compute(**(compute or {})),
        steps=steps,
        scratch=scratch,
        report=report or Report(),
        guard={"seed": 0},
    )
    return model, made


def weights(model: LanguageModel) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same_bits(a: LanguageModel, b: LanguageModel) -> bool:
    return all(
        torch.equal(x, y) for x, y in zip(weights(a).values(), weights(b).values(), strict=True)
    )


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_model_learns_a_few_sequences_by_heart(optimizer: str, tmp_path: Path) -> None:
    _, result = train(tmp_path, 60, optimizer=optimizer)
    losses = [row["loss"] for row in result.metrics]
    assert losses[0] == pytest.approx(math.log(97), rel=0.05)
    assert losses[-1] < 0.5


@pytest.mark.parametrize("shape", tiny.SHAPES.values(), ids=tiny.SHAPES)
def test_the_micro_batch_changes_nothing_but_rounding(shape: dict, tmp_path: Path) -> None:
    steps = 5
    sums = 8 * 16 * 48  # tokens of a batch, each with the terms of the widest product before it
    whole, a = train(tmp_path / "8", steps, shape=shape, compute={"micro_batch_size": 8})
    parts, b = train(tmp_path / "1", steps, shape=shape, compute={"micro_batch_size": 1})
    norm = b.metrics[0]["gradient_norm"]
    assert a.metrics[0]["gradient_norm"] == pytest.approx(
        norm, rel=4 * rounding.gradient_share(sums)
    )
    bound = rounding.weight_share(steps, sums)
    assert bound < 0.05, "a row that is left out changes a quarter"
    start = weights(tiny.model(loud=False, **shape))
    shares = rounding.apart(weights(whole), weights(parts), start)
    assert max(shares.values()) < bound, shares
    losses = [row["loss"] for row in b.metrics]
    assert [row["loss"] for row in a.metrics] == pytest.approx(losses, rel=bound)


def test_the_loss_of_a_mixture_of_experts_is_the_sum_of_the_loss_of_each_row() -> None:
    model, batches = tiny.model(**tiny.SHAPES["qwen3_moe"]), tiny.Repeated()
    with torch.no_grad():
        whole, *rows = (
            float(tiny.next_token(model, batches.rows(0, *cut)).total)
            for cut in [(0, 8), *((n, 1) for n in range(8))]
        )
    assert whole == pytest.approx(sum(rows), rel=1e-6)


def test_the_table_has_a_row_for_each_logged_step_with_the_mean_loss_since_the_last(
    tmp_path: Path,
) -> None:
    _, every = train(tmp_path / "a", 10, log_every=1)
    _, some = train(tmp_path / "b", 10, log_every=4)
    assert [row["step"] for row in some.metrics] == [0, 4, 8, 9]
    losses = [row["loss"] for row in every.metrics]
    assert some.metrics[1]["loss"] == pytest.approx(sum(losses[1:5]) / 4)
    assert some.metrics[-1]["tokens"] == 10 * 8 * 16 == some.figures["tokens"]


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_run_that_crashed_continues_to_the_same_bits(
    optimizer: str, threads: int, tmp_path: Path
) -> None:
    compute = {"threads": threads, "checkpoint_every": 5}
    whole, result = train(tmp_path / "a", compute=compute, optimizer=optimizer, log_every=3)
    with pytest.raises(CrashError):
        train(
            tmp_path / "b",
            report=RecordingReport(14, crash),
            compute=compute,
            optimizer=optimizer,
            log_every=3,
        )
    report = RecordingReport()
    again, continued = train(
        tmp_path / "b", report=report, compute=compute, optimizer=optimizer, log_every=3
    )
    assert report.notes == ["continuing after step 10 of 20"]
    assert same_bits(whole, again)
    assert continued.metrics == result.metrics


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_after_a_resume_checkpoint_and_the_next_run_continues_to_the_same_bits(
    number: int, tmp_path: Path
) -> None:
    whole, _ = train(tmp_path / "a")
    with pytest.raises(Interrupted, match="after step 7 of 20"):
        train(tmp_path / "b", report=RecordingReport(7, lambda: os.kill(os.getpid(), number)))
    report = RecordingReport()
    again, _ = train(tmp_path / "b", report=report)
    assert report.notes == ["continuing after step 7 of 20"]
    assert same_bits(whole, again)


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault", ["flipped bit", "cut short", "missing file", "no state", "half state"]
)
def test_a_damaged_resume_checkpoint_is_passed_over_with_a_note_and_the_one_before_is_used(
    fault: str, tmp_path: Path
) -> None:
    whole, _ = train(tmp_path / "a")
    with pytest.raises(CrashError):
        train(tmp_path / "b", report=RecordingReport(14, crash), compute={"checkpoint_every": 5})
    newest = tmp_path / "b" / "safe_points" / "step-000000010"
    tensors = next(newest.glob("*.safetensors"))
    match fault:
        case "flipped bit":
            damage(tensors)
        case "cut short":
            tensors.write_bytes(tensors.read_bytes()[:100])
        case "missing file":
            tensors.unlink()
        case "no state":
            (newest / "state.json").unlink()
        case "half state":
            (newest / "state.json").write_text((newest / "state.json").read_text()[:50])
    report = RecordingReport()
    again, result = train(tmp_path / "b", report=report)
    assert "step-000000010 cannot be used" in report.notes[0]
    assert report.notes[1] == "continuing after step 5 of 20"
    assert same_bits(whole, again)
    assert result.notes == report.notes[:1]


def test_a_resume_checkpoint_of_other_settings_is_not_used(tmp_path: Path) -> None:
    with pytest.raises(CrashError):
        train(tmp_path, report=RecordingReport(5, crash), compute={"checkpoint_every": 2})
    report = RecordingReport()
    train(tmp_path, 6, report=report)
    assert all("other steps" in note for note in report.notes)
    assert len(report.notes) == 2


def test_rank_0_alone_looks_for_the_resume_checkpoint_that_all_continue_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broadcast(values: list[Any], src: int) -> None:
        values[0] = f"what rank {src} found"

    monkeypatch.setattr(collectives, "world_size", lambda: 2)
    monkeypatch.setattr(collectives, "rank", lambda: 1)
    monkeypatch.setattr(torch.distributed, "broadcast_object_list", broadcast)
    (tmp_path / "step-000000005").mkdir()  # not to be read
    assert resume.newest(tmp_path, {"seed": 0}) == "what rank 0 found"


def test_only_the_last_two_resume_checkpoints_are_kept_and_none_is_pickled(tmp_path: Path) -> None:
    with pytest.raises(CrashError):
        train(tmp_path, report=RecordingReport(7, crash), compute={"checkpoint_every": 2})
    assert sorted(path.name for path in (tmp_path / "safe_points").iterdir()) == [
        "step-000000004",
        "step-000000006",
    ]
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {
        ".safetensors",
        ".json",
    }


def poisoned(*steps: int) -> LossFunction:
    calls = iter(range(10**9))

    def loss(model: LanguageModel, batch: Batch) -> Loss:
        good = tiny.next_token(model, batch)
        return Loss(
            good.total * (math.nan if next(calls) in steps else 1.0),
            good.weight,
            good.tokens,
            good.figures,
        )

    return loss


def test_a_step_that_is_not_finite_changes_nothing_and_is_recorded(tmp_path: Path) -> None:
    before: list[dict[str, Tensor]] = []
    seen: list[LanguageModel] = []
    inner = poisoned(3)

    def loss(model: LanguageModel, batch: Batch) -> Loss:
        seen.append(model)
        before.append(weights(model))
        return inner(model, batch)

    _, result = train(tmp_path, 6, loss=loss, log_every=100)
    assert all(torch.equal(before[3][name], before[4][name]) for name in before[3])
    assert not all(torch.equal(before[4][name], before[5][name]) for name in before[3])
    row = next(row for row in result.metrics if row["step"] == 3)
    assert row["skipped"]
    assert row["gradient_norm"] is None
    assert result.figures["skipped_steps"] == 1
    assert "step 3 was skipped" in result.notes[0]
    assert all(torch.isfinite(tensor).all() for tensor in weights(seen[-1]).values())


def test_ten_bad_steps_in_a_row_end_the_run_naming_step_and_documents(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"training step 13: 10 steps in a row .* documents document 13"
    ):
        train(tmp_path, loss=poisoned(*range(4, 20)))


def test_a_learning_rate_far_too_high_leads_to_that_error_and_not_to_a_checkpoint_of_nan(
    tmp_path: Path,
) -> None:
    with pytest.raises(InputError, match="set a lower learning_rate"):
        train(
            tmp_path,
            400,
            optimizer="adamw",
            learning_rate=1.0,
            stability={"spike_threshold": 2.0, "grad_clip": 1e6},
            weight_decay=1.0,
            lr_schedule={"warmup_share": 0.0},
        )


def test_a_batch_without_labels_is_skipped(tmp_path: Path) -> None:
    def loss(model: LanguageModel, batch: Batch) -> Loss:
        good = tiny.next_token(model, batch)
        return Loss(good.total * 0, 0, good.tokens)

    _, result = train(tmp_path, 3, loss=loss)
    assert result.figures["skipped_steps"] == 3


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
def test_compiled_blocks_learn_the_same(threads: int, tmp_path: Path) -> None:
    _, plain = train(tmp_path / "a", 5, compute={"threads": threads})
    model, compiled = train(tmp_path / "b", 5, compute={"threads": threads, "compile": "on"})
    assert compiled.figures["compile_seconds"], compiled.notes
    assert [row["loss"] for row in compiled.metrics] == pytest.approx(
        [row["loss"] for row in plain.metrics], rel=1e-4
    )
    assert all(block._compiled_call_impl is None for block in model.model.layers)


def failing_once(error: Exception) -> LossFunction:
    """next_token, but for the first call."""
    errors = [error]

    def loss(model: LanguageModel, batch: Batch) -> Loss:
        if errors:
            raise errors.pop()
        return tiny.next_token(model, batch)

    return loss


@pytest.mark.parametrize("compiling", ["off", pytest.param("on", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("micro", "fix"), [(8, "--set STAGE.compute.micro_batch_size=4 "), (1, "give it more devices")]
)
def test_an_out_of_memory_error_gives_the_micro_batch_to_try(
    compiling: str, micro: int, fix: str, tmp_path: Path
) -> None:
    full = torch.OutOfMemoryError("tried to allocate 9 GiB")
    with pytest.raises(
        ConfigError,
        match=rf"micro_batch_size = {micro}: .* more memory than cpu has: "
        rf"tried to allocate 9 GiB\n.*{fix}",
    ):
        train(
            tmp_path,
            1,
            loss=failing_once(full),
            compute={"compile": compiling, "micro_batch_size": micro},
        )


@pytest.mark.slow
def test_blocks_that_cannot_be_compiled_run_as_they_are_even_if_no_reason_is_given(
    tmp_path: Path,
) -> None:
    _, result = train(tmp_path, 2, loss=failing_once(RuntimeError()), compute={"compile": "on"})
    assert result.notes == ["the blocks could not be compiled and run as they are: RuntimeError"]
    assert result.figures["compile_seconds"] is None
