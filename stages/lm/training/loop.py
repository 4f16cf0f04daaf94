"""The one training loop. pretrain, sft and dpo give it different batches and a different loss.

A step sums the gradients over all rows of the batch, in micro-batches, and divides them by the
summed weight. So neither the micro-batch nor the number of devices changes the result beyond
rounding. Then the gradients are clipped and the weights updated, unless the step is skipped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data_contracts import ConfigError, Interrupted
from stages.lm import precision
from stages.lm.model import LanguageModel
from stages.lm.parallel import collectives, launch, storage
from stages.lm.training import compilation, resume
from stages.lm.training.batches import Batches
from stages.lm.training.config import Compute, Training
from stages.lm.training.failures import MAX_SKIPPED_IN_ROW, diverged, explained_out_of_memory
from stages.lm.training.log import TrainingLog, finite_or_none
from stages.lm.training.optimizers import (
    SpikeGuard,
    gradient_norm,
    make_optimizers,
    optimizer_tensors,
    schedule,
    set_learning_rate,
)
from stages.lm.training.step import (
    LossFunction,
    StepParts,
    choose_micro_batch_size,
    training_step,
)
from stages.report import Report

RESUME_FOLDER = "safe_points"  # keeps its first name: older versions left such folders behind

Evaluate = Callable[[LanguageModel], Mapping[str, float]]


@dataclass
class Fitted:
    """The outcome of a training.

    Attributes:
        metrics: Rows of the table `metrics` in the checkpoint contract.
        figures: Figures for the stage's facts.
        notes: What a reader of the facts must know.
    """

    metrics: list[dict[str, Any]]
    figures: dict[str, float | int | str | bool | None]
    notes: list[str]


def fit(
    model: LanguageModel,
    batches: Batches,
    loss: LossFunction,
    *,
    training: Training,
    compute: Compute,
    steps: int,
    scratch: Path,
    report: Report,
    guard: Mapping[str, Any],
    evaluate: Evaluate | None = None,
    sequences_per_row: int = 1,
) -> Fitted:
    """Train `model` in place for `steps` steps.

    Continues from the last resume checkpoint in `scratch`, if there is one.

    Args:
        model: The model, on its device and sharded if there are several ranks.
        batches: The training data.
        loss: The loss of a micro-batch.
        training: How the model is optimized.
        compute: Where and how the training runs.
        steps: Optimizer steps in all.
        scratch: Folder for resume checkpoints.
        report: Receives progress, metrics and notes.
        guard: Plain values that identify this run, such as its seed and the ids of its inputs. A
            resume checkpoint with other values is not used.
        evaluate: Computes held-out figures by column of the metrics table. It runs every
            `training.evaluate_every` steps and after the last step.
        sequences_per_row: How many sequences of up to the context's length a row holds.

    Raises:
        Interrupted: SIGTERM or SIGINT stopped the training, after a resume checkpoint was written.
        InputError: Too many steps in a row were bad. The message names the step and its documents.
        ConfigError: The device has too little memory. The message gives a smaller micro-batch.
    """
    run = TrainingRun(
        model,
        batches,
        loss,
        training=training,
        compute=compute,
        steps=steps,
        folder=scratch / RESUME_FOLDER,
        report=report,
        guard={**guard, "steps": steps},
        sequences_per_row=sequences_per_row,
    )
    report.note(f"matrix products in {run.precision.name}: {run.precision.reason}")
    run.restore()
    run.train(scratch, evaluate)
    return run.fitted()


class TrainingRun:
    """The state of one training run, which a resume checkpoint holds, and the parts of the loop."""

    def __init__(
        self,
        model: LanguageModel,
        batches: Batches,
        loss: LossFunction,
        *,
        training: Training,
        compute: Compute,
        steps: int,
        folder: Path,
        report: Report,
        guard: dict[str, Any],
        sequences_per_row: int,
    ):
        self.model = model
        self.batches = batches
        self.training = training
        self.compute = compute
        self.steps = steps
        self.folder = folder
        self.report = report
        self.guard = guard

        self.device = next(model.parameters()).device
        self.precision = precision.choose(compute, self.device)
        self.threads = precision.set_threads(compute)
        self.world_size = collectives.world_size()
        self.rows_per_rank = _rows_per_rank(training.batch_size, self.world_size)
        self.micro_batch_size = choose_micro_batch_size(
            self.rows_per_rank,
            compute.micro_batch_size,
            sequences_per_row * model.config.context,
            self.device,
        )
        parts = StepParts(
            model=model,
            batches=batches,
            loss=loss,
            rows_per_rank=self.rows_per_rank,
            micro_batch_size=self.micro_batch_size,
            dtype=self.precision.dtype,
            device=self.device,
        )
        self.training_step = training_step(parts)
        self.log = TrainingLog(report, training.log_every)
        self.optimizers = make_optimizers(model, training, self.precision.dtype)
        self.spike_guard = SpikeGuard(training.stability.spike_threshold)

        self.step = 0
        self.tokens = 0
        self.seconds = 0.0
        self.compile_seconds = 0.0
        self.is_compiled = False

    def train(self, scratch: Path, evaluate: Evaluate | None) -> None:
        """Train to the last step, with evaluations and resume checkpoints as they are due.

        Args:
            scratch: The draft's scratch folder, where a request to stop is left.
            evaluate: Computes held-out figures; see `fit`.
        """
        with (
            launch.stop_requested_on_any_rank(scratch, self.device) as is_stop_requested,
            explained_out_of_memory(self.rows_per_rank, self.micro_batch_size, self.device),
            self.compiled_blocks(),
        ):
            while self.step < self.steps:
                self.train_step()
                is_done = self.step == self.steps
                if evaluate and (is_done or self.step % self.training.evaluate_every == 0):
                    self.evaluate(evaluate)
                self.log.finish_row(is_last=is_done)
                is_stopping = is_stop_requested()
                if is_done:
                    break
                if is_stopping or self.step % self.compute.checkpoint_every == 0:
                    self.save()
                if is_stopping:
                    raise Interrupted(
                        "training",
                        f"was stopped after step {self.step} of {self.steps}",
                        "run the same command again: it continues from there",
                    )

    def train_step(self) -> None:
        """Compute the gradients of one batch and update the weights, unless the step is bad."""
        started = time.perf_counter()
        rate_factor = schedule(self.training, self.step, self.steps)
        set_learning_rate(self.optimizers, rate_factor)
        result = self.training_step.run(self.step)
        self.tokens += result.tokens
        loss = result.means["loss"]
        norm = float(gradient_norm(self.model)) * result.gradient_scale
        is_skipped = not result.gradient_scale or self.spike_guard.is_bad(loss, norm)
        if not is_skipped:
            self._update_weights(result.gradient_scale, norm)
        self._clear_gradients()
        self.seconds += time.perf_counter() - started
        row = {
            "step": self.step,
            "tokens": self.tokens,
            "learning_rate": self.training.learning_rate * rate_factor,
            "gradient_norm": finite_or_none(norm),
        }
        if is_skipped:
            self.log.add_skipped_step(row, loss)
            if self.log.skipped_in_row >= MAX_SKIPPED_IN_ROW:
                raise diverged(self.step, self.batches.documents(self.step))
        else:
            self.log.add_good_step(row, result.means)
        self.step += 1
        self.report.progress(self.step, self.steps, "steps")

    def evaluate(self, evaluate: Evaluate) -> None:
        """Add held-out figures to the current row of the metrics table."""
        was_training = self.model.training
        self.model.eval()
        with (
            torch.no_grad(),
            precision.autocast(self.precision.dtype, self.device),
            compilation.uncompiled(self.model),
        ):
            self.log.add_heldout(evaluate(self.model))
        self.model.train(was_training)

    def save(self) -> None:
        """Write a resume checkpoint. All ranks must call it."""
        state = {
            "guard": self.guard,
            "step": self.step,
            "tokens": self.tokens,
            "seconds": self.seconds,
            "gradient_norms": list(self.spike_guard.norms),
            **self.log.state(),
        }
        resume.save(self.folder, self.step, self._tensors(), state)

    def restore(self) -> None:
        """Continue from the newest resume checkpoint that can be used, if there is one."""
        checkpoint, state, notes = resume.newest(self.folder, self.guard)
        for note in notes:
            self.log.note(note)
        if checkpoint is None:
            return
        storage.load_tensors(checkpoint, self._tensors())
        self.step = state["step"]
        self.tokens = state["tokens"]
        self.seconds = state["seconds"]
        self.log.load(state)
        self.spike_guard = SpikeGuard(
            self.training.stability.spike_threshold, state["gradient_norms"]
        )
        self.report.note(f"continuing after step {self.step} of {self.steps}")

    @contextmanager
    def compiled_blocks(self) -> Iterator[None]:
        """Compile the blocks in this context if the run is long enough.

        The length of the whole run counts, not what is left of it: a continued run must compute the
        same bits.
        """
        sizes = self.model.config
        flops = self.steps * self.rows_per_rank * sizes.context * sizes.flops_per_token()
        self.is_compiled = precision.should_compile(self.compute, flops, self.device)
        try:
            if self.is_compiled:
                self._compile()
            yield
        finally:
            compilation.remove_compiled(self.model)

    def fitted(self) -> Fitted:
        """Return the outcome, after the last step."""
        tokens_per_second = self.tokens / self.seconds if self.seconds else 0.0
        flops_per_second = tokens_per_second * self.model.config.flops_per_token()
        rows = self.steps * self.training.batch_size
        compile_seconds = round(self.compile_seconds, 1) if self.is_compiled else None
        figures: dict[str, float | int | str | bool | None] = {
            "parameters": self.model.config.parameters().total,
            "steps": self.steps,
            "tokens": self.tokens,
            "epochs": round(rows / self.batches.rows_per_epoch, 3),
            "final_loss": self.log.metrics[-1].get("loss"),
            "skipped_steps": self.log.skipped,
            "tokens_per_second": round(tokens_per_second),
            "gflops_per_second": round(flops_per_second / 1e9, 1),
            "training_seconds": round(self.seconds, 1),
            "precision": self.precision.name,
            "precision_reason": self.precision.reason,
            "compile_seconds": compile_seconds,
            "devices": f"{self.world_size} x {self.device.type}",
            "threads": self.threads,
        }
        return Fitted(self.log.metrics, figures, self.log.notes)

    def _update_weights(self, scale: float, norm: float) -> None:
        """Scale the summed gradients, clip them to `grad_clip`, and step the optimizers."""
        factor = scale * min(1.0, self.training.stability.grad_clip / max(norm, 1e-12))
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        torch._foreach_mul_(gradients, factor)
        for optimizer in self.optimizers:
            optimizer.step()

    def _clear_gradients(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)

    def _compile(self) -> None:
        """Compile the blocks and run one micro-batch, which makes the kernels."""
        started = time.perf_counter()

        def run_micro_batch() -> None:
            self.training_step.run(self.step, rows=self.micro_batch_size)

        problem = compilation.compile_and_run(self.model, run_micro_batch)
        if problem:
            self.is_compiled = False
            self.log.note(f"the blocks could not be compiled and run as they are: {problem}")
        self._clear_gradients()
        self.compile_seconds = time.perf_counter() - started

    def _tensors(self) -> dict[str, Tensor]:
        """Return the tensors of a resume checkpoint by name: weights and optimizer state."""
        weights = self.model.state_dict()
        states = optimizer_tensors(self.model, self.optimizers)
        return {
            **{f"model/{name}": tensor for name, tensor in weights.items()},
            **{f"optimizer/{name}": tensor for name, tensor in states.items()},
        }


def _rows_per_rank(batch_size: int, world_size: int) -> int:
    if batch_size % world_size:
        raise ConfigError(
            "training.batch_size",
            f"{batch_size} rows cannot be shared by {world_size} devices",
            f"use a multiple of {world_size}",
        )
    return batch_size // world_size
