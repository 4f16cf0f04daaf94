"""The one training loop. pretrain, sft and dpo give it different batches and a different loss.

A step: gradients of the summed loss over all rows of the batch, in micro-batches, divided by the summed weight; so neither the
micro-batch nor the number of devices changes what is computed, beyond rounding. Then clip, or skip if the step is bad, and update.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data_contracts import ConfigError, InputError, Interrupted
from stages.lm import precision
from stages.lm.config import Compute, Training
from stages.lm.model import LanguageModel
from stages.lm.parallel import collectives, fsdp, launch, storage
from stages.lm.training import resume
from stages.lm.training.batches import Batch, Batches
from stages.lm.training.optimizers import (
    SpikeGuard,
    gradient_norm,
    make_optimizers,
    optimizer_tensors,
    schedule,
    set_learning_rate,
)
from stages.report import Report

MICRO_BATCH_TOKENS = {"cpu": 4096, "cuda": 32768}
MAX_SKIPPED = 10  # bad steps in a row after which training is held to have failed


@dataclass(frozen=True)
class Loss:
    """Of one micro-batch. All values are sums over its rows.

    total: what is minimized. weight: what the sums are divided by (labelled tokens, or pairs). tokens: tokens read.
    figures: further sums for the metrics table, by column; `loss` among them takes the place of `total` there.
    """

    total: Tensor
    weight: Tensor | float
    tokens: Tensor | int
    figures: Mapping[str, Tensor] = field(default_factory=dict)


LossFunction = Callable[[LanguageModel, Batch], Loss]
Evaluate = Callable[[LanguageModel], Mapping[str, float]]


@dataclass
class Fitted:
    """How the training went. metrics: rows of the checkpoint contract. figures: for Facts. notes: what a reader must know."""

    metrics: list[dict[str, Any]]
    figures: dict[str, float | int | str | bool | None]
    notes: list[str]


def fit(
    model: LanguageModel, batches: Batches, loss: LossFunction, *, training: Training, compute: Compute, steps: int,
    scratch: Path, report: Report, guard: Mapping[str, Any], evaluate: Evaluate | None = None, sequences: int = 1,
) -> Fitted:  # fmt: skip
    """Train `model` in place for `steps` steps, continuing from the last safe point in `scratch` if there is one.

    guard: plain values that tell this run from others (seed, input ids); a safe point with other values is not used.
    evaluate: held-out figures by metrics column, computed every `training.evaluate_every` steps and after the last.
    sequences: of the context's length, in a row.
    Raises Interrupted after a safe point on SIGTERM or SIGINT; InputError naming step and documents after 10 bad steps in a row;
    ConfigError with a smaller micro-batch if the device's memory does not suffice.
    """
    run = _Run(
        model,
        batches,
        loss,
        training,
        compute,
        steps,
        scratch,
        report,
        dict(guard) | {"steps": steps},
        sequences,
    )
    report.note(f"matrix products in {run.precision.name}: {run.precision.reason}")
    run.restore()
    with (
        launch.stop_requested_on_any_rank(scratch, run.device) as stop,
        run.enough_memory(),
        run.compiled(),
    ):
        while run.step < steps:
            run.one_step()
            done = run.step == steps
            if evaluate and (done or run.step % training.evaluate_every == 0):
                run.evaluate(evaluate)
            run.log()
            stopping = stop()
            if not done and (stopping or run.step % compute.checkpoint_every == 0):
                run.save()
            if stopping and not done:
                raise Interrupted(
                    "training",
                    f"was stopped after step {run.step} of {steps}",
                    "run the same command again: it continues from there",
                )
    return run.fitted()


class _Run:
    """One training run: everything that a safe point must hold, and the parts of a step."""

    def __init__(
        self, model: LanguageModel, batches: Batches, loss: LossFunction, training: Training, compute: Compute, steps: int,
        scratch: Path, report: Report, guard: dict[str, Any], sequences: int,
    ):  # fmt: skip
        self.model, self.batches, self.loss, self.training, self.compute = (
            model,
            batches,
            loss,
            training,
            compute,
        )
        self.steps, self.folder, self.report, self.guard = (
            steps,
            scratch / "safe_points",
            report,
            guard,
        )
        self.device = next(model.parameters()).device
        self.precision = precision.choose(compute, self.device)
        self.dtype = self.precision.dtype
        self.threads = precision.set_threads(compute)
        self.world_size, self.rank = collectives.world_size(), collectives.rank()
        if training.batch_rows % self.world_size:
            raise ConfigError(
                "training.batch_rows",
                f"{training.batch_rows} rows cannot be shared by {self.world_size} devices",
                f"use a multiple of {self.world_size}",
            )
        self.share = training.batch_rows // self.world_size
        self.micro = _micro_batch(
            self.share, compute.micro_batch_rows, sequences * model.config.context, self.device
        )
        self.optimizers = make_optimizers(model, training, self.dtype)
        self.spikes = SpikeGuard(training.spike)
        self.step = self.tokens = self.skipped = self.skipped_in_row = 0
        self.seconds = self.compile_seconds = 0.0
        self.metrics: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self.since_log: list[dict[str, float]] = []
        self.row: dict[str, Any] = {}

    def one_step(self) -> None:
        """Gradients, the verdict on them, and the update."""
        started = time.perf_counter()
        share = schedule(self.training, self.step, self.steps)
        set_learning_rate(self.optimizers, share)
        sums = collectives.all_reduce(self._gradients(self.share), self.device)
        weight = sums.pop("weight")
        self.tokens += int(sums.pop("tokens"))
        figures = {name: value / weight if weight else 0.0 for name, value in sums.items()}
        # sharded gradients come averaged over ranks; weight is the sum over all of them
        scale = fsdp.gradient_factor() / weight if weight else 0.0
        norm = float(gradient_norm(self.model)) * scale
        skipped = not weight or self.spikes.bad(figures["loss"], norm)
        if not skipped:
            factor = scale * min(1.0, self.training.clip / max(norm, 1e-12))
            torch._foreach_mul_(
                [weight.grad for weight in self.model.parameters() if weight.grad is not None],
                factor,
            )
            for optimizer in self.optimizers:
                optimizer.step()
        self._forget_gradients()
        self.seconds += time.perf_counter() - started
        self.row = {"step": self.step, "tokens": self.tokens, "learning_rate": self.training.learning_rate * share,
                    "gradient_norm": _finite(norm), "skipped": skipped}  # fmt: skip
        self._judge(skipped, figures)
        self.step += 1
        self.report.progress(self.step, self.steps, "steps")

    def _gradients(self, count: int) -> dict[str, float]:
        """Sums over the first `count` of this rank's rows, after their backward passes."""
        sums: dict[str, Any] = {"weight": 0.0, "tokens": 0}
        first = self.rank * self.share
        for start in range(first, first + count, self.micro):
            rows = self.batches.rows(self.step, start, self.micro)
            fsdp.set_is_last_micro_batch(self.model, start + self.micro == first + count)
            with precision.autocast(self.dtype, self.device):
                part = self.loss(
                    self.model,
                    {
                        name: tensor.to(self.device, non_blocking=True)
                        for name, tensor in rows.items()
                    },
                )
            part.total.backward()
            for name, value in {
                "loss": part.total.detach(),
                **part.figures,
                "weight": part.weight,
                "tokens": part.tokens,
            }.items():
                sums[name] = sums.get(name, 0.0) + value
        return {name: float(value) for name, value in sums.items()}

    def _forget_gradients(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)

    def _judge(self, skipped: bool, figures: dict[str, float]) -> None:
        if not skipped:
            self.skipped_in_row = 0
            self.since_log.append(figures)
            return
        self.skipped += 1
        self.skipped_in_row += 1
        self.notes.append(
            f"step {self.step} was skipped: loss {figures['loss']:.4g}, gradient norm {self.row['gradient_norm']}"
        )
        self.report.note(self.notes[-1])
        if self.skipped_in_row >= MAX_SKIPPED:
            documents = self.batches.documents(self.step)
            raise InputError(
                f"training step {self.step}",
                f"{MAX_SKIPPED} steps in a row had a loss or gradient that is not finite or far above the usual; the last one read "
                f"documents {', '.join(documents[:8])}{' …' if len(documents) > 8 else ''}",
                "set a lower learning_rate and matrix_learning_rate, or look at these documents",
            )

    def evaluate(self, evaluate: Evaluate) -> None:
        was_training = self.model.training
        self.model.eval()
        with torch.no_grad(), precision.autocast(self.dtype, self.device), _uncompiled(self.model):
            self.row |= {name: _finite(value) for name, value in evaluate(self.model).items()}
        self.model.train(was_training)

    def log(self) -> None:
        """Put the step into the metrics table if it is due, was evaluated, or was skipped."""
        due = self.row["step"] % self.training.log_every == 0 or self.step == self.steps
        if not (due or self.row["skipped"] or "heldout_loss" in self.row):
            return
        for name in self.since_log[0] if self.since_log else ():
            self.row[name] = sum(figures[name] for figures in self.since_log) / len(self.since_log)
        self.since_log = []
        self.metrics.append(self.row)
        self.report.metrics(
            self.row["step"],
            **{name: value for name, value in self.row.items() if name not in ("step", "skipped")},
        )

    def save(self) -> None:
        state = {
            "guard": self.guard, "step": self.step, "tokens": self.tokens, "skipped": self.skipped,
            "skipped_in_row": self.skipped_in_row, "seconds": self.seconds, "metrics": self.metrics, "notes": self.notes,
            "since_log": self.since_log, "gradient_norms": list(self.spikes.seen),
        }  # fmt: skip
        resume.save(self.folder, self.step, self._tensors(), state)

    def _tensors(self) -> dict[str, Tensor]:
        weights = {f"model/{name}": tensor for name, tensor in self.model.state_dict().items()}
        return weights | {
            f"optimizer/{name}": t
            for name, t in optimizer_tensors(self.model, self.optimizers).items()
        }

    def restore(self) -> None:
        place, state, passed_over = resume.newest(self.folder, self.guard)
        for note in passed_over:
            self.report.note(note)
            self.notes.append(note)
        if place is None:
            return
        storage.load_tensors(place, self._tensors())
        self.step, self.tokens, self.skipped = state["step"], state["tokens"], state["skipped"]
        self.skipped_in_row, self.seconds = state["skipped_in_row"], state["seconds"]
        self.metrics, self.since_log = state["metrics"], state["since_log"]
        self.notes = state["notes"] + self.notes
        self.spikes = SpikeGuard(self.training.spike, state["gradient_norms"])
        self.report.note(f"continuing after step {self.step} of {self.steps}")

    @contextmanager
    def enough_memory(self) -> Iterator[None]:
        try:
            yield
        except torch.OutOfMemoryError as error:
            fewer = _divisor(self.share, self.micro // 2) if self.micro > 1 else 0
            raise ConfigError(
                f"compute.micro_batch_rows = {self.micro}",
                f"so many rows at once need more memory than {self.device} has: {str(error).splitlines()[0]}",
                f"run it again with --set STAGE.compute.micro_batch_rows={fewer} (STAGE: its name); it continues from the last safe point"
                if fewer else "give it more devices, or a model with a shorter context",
            ) from None  # fmt: skip

    @contextmanager
    def compiled(self) -> Iterator[None]:
        """Compile the blocks if the whole run is long enough (the whole, so that a continued run computes the same bits)."""
        model, tokens = self.model.config, self.steps * self.share * self.model.config.context
        self.compiles = precision.should_compile(
            self.compute, tokens * model.flops_per_token(), self.device
        )
        if self.compiles:
            started = time.perf_counter()
            precision.compile_blocks(self.model.model.layers)
            try:
                self._gradients(self.micro)
            except (
                torch.OutOfMemoryError
            ):  # a RuntimeError too, but uncompiled blocks would need no less
                _set_compiled(self.model, [None] * model.layers)
                raise
            except (
                torch._dynamo.exc.TorchDynamoException,
                RuntimeError,
            ) as error:  # no working C++ compiler, most often
                self.compiles = False
                why = (str(error).strip() or type(error).__name__).splitlines()[0]
                self.notes.append(f"the blocks could not be compiled and run as they are: {why}")
                self.report.note(self.notes[-1])
                _set_compiled(self.model, [None] * model.layers)
            self._forget_gradients()
            self.compile_seconds = time.perf_counter() - started
        try:
            yield
        finally:
            _set_compiled(self.model, [None] * model.layers)

    def fitted(self) -> Fitted:
        rate = self.tokens / self.seconds if self.seconds else 0.0
        last = self.metrics[-1]
        figures: dict[str, float | int | str | bool | None] = {
            "parameters": self.model.config.parameters().total,
            "steps": self.steps,
            "tokens": self.tokens,
            "epochs": round(self.steps * self.training.batch_rows / self.batches.rows_per_epoch, 3),
            "final_loss": last.get("loss"),
            "skipped_steps": self.skipped,
            "tokens_per_second": round(rate),
            "gflops_per_second": round(rate * self.model.config.flops_per_token() / 1e9, 1),
            "training_seconds": round(self.seconds, 1),
            "precision": self.precision.name,
            "precision_reason": self.precision.reason,
            "compile_seconds": round(self.compile_seconds, 1) if self.compiles else None,
            "devices": f"{self.world_size} x {self.device.type}",
            "threads": self.threads,
        }
        return Fitted(self.metrics, figures, self.notes)


@contextmanager
def _uncompiled(model: LanguageModel) -> Iterator[None]:
    """Inside, blocks run as they are: other shapes and modes would each be compiled anew."""
    compiled = [block._compiled_call_impl for block in model.model.layers]
    _set_compiled(model, [None] * len(compiled))
    try:
        yield
    finally:
        _set_compiled(model, compiled)


def _set_compiled(model: LanguageModel, calls: list[Any]) -> None:
    for block, call in zip(model.model.layers, calls, strict=True):
        block._compiled_call_impl = call  # what Module.compile() sets


def _micro_batch(rows: int, wanted: int, row_tokens: int, device: torch.device) -> int:
    """Rows of a forward pass: a divisor of `rows`, so that all passes have one shape."""
    return _divisor(rows, wanted or max(1, MICRO_BATCH_TOKENS[device.type] // row_tokens))


def _divisor(rows: int, most: int) -> int:
    """The largest divisor of `rows` up to `most`."""
    return max(divisor for divisor in range(1, min(rows, most) + 1) if rows % divisor == 0)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
