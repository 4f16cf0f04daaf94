"""Training speed of our loop and of transformers' model, compiled, with the same optimizers.

Shapes: R rows, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM

from stages.lm import precision
from stages.lm.config import ModelConfig
from stages.lm.training.config import Training
from stages.lm.training.loop import fit
from stages.lm.training.muon import Muon, update_flops
from stages.lm.training.optimizers import (
    gradient_norm,
    make_optimizers,
    schedule,
    set_learning_rate,
)
from stages.pretrain.stage import next_token_loss
from tests.gpu import made_up
from tests.gpu.machine import CheckError, Figures, Machine, bfloat16_peak, has_fallen
from tests.gpu.report import Check

SHAPES = {
    "124M": {"width": 768, "layers": 12, "heads": 12, "kv_heads": 12, "ffn_width": 2048},
    "350M": {"width": 1024, "layers": 24, "heads": 16, "kv_heads": 16, "ffn_width": 2816},
}
TINY = {
    "124M": {"width": 48, "layers": 2, "heads": 4, "kv_heads": 4, "ffn_width": 128},
    "350M": {"width": 64, "layers": 3, "heads": 4, "kv_heads": 4, "ffn_width": 176},
}
WARM_UP = 10  # steps that allocate memory and load kernels; they are not timed
STEPS = 100


def speed(shape: str) -> Check:
    """Make the check of one of the shapes."""

    def check(machine: Machine) -> Figures:
        vocabulary, context, rows = machine.either((512, 64, 4), (50304, 1024, 32))
        widths = machine.either(TINY, SHAPES)[shape]
        sizes = ModelConfig(vocab_size=vocabulary, context=context, **widths)
        return compare(machine, sizes, rows)

    return check


def compare(machine: Machine, sizes: ModelConfig, rows: int) -> Figures:
    """Measure both sides, one after the other, on the same random tokens.

    Ours is `fit` as the stages call it. Theirs is a loop that does the same with LlamaForCausalLM:
    bfloat16 autocast over float32 weights as in `fit`, schedule, clipping, make_optimizers.
    """
    steps = machine.either(2, WARM_UP), machine.either(10, STEPS)
    # the rates of recipe 125m
    training = made_up.training(batch_size=rows, learning_rate=3e-3, muon_learning_rate=2e-2)
    peak = bfloat16_peak(machine.name)
    figures: Figures = {
        "parameters": sizes.parameters().total,
        "gflop_per_token": round(sizes.flops_per_token() / 1e9, 6),
        "tokens_per_step": rows * sizes.context,
        "steps": steps[1],
    }
    for side, run in {"ours": ours, "transformers": theirs}.items():
        machine.release()
        with machine.peak_memory() as memory:
            found = run(machine, sizes, training, *steps)
        rate = found.pop("tokens_per_second")
        figures[f"{side}_tokens_per_second"] = round(rate)
        figures[f"{side}_mfu"] = peak and round(rate * sizes.flops_per_token() / peak, 4)
        figures[f"{side}_peak_gb"] = memory["peak_gb"]
        figures |= {f"{side}_{name}": value for name, value in found.items()}
    ratio = figures["ours_tokens_per_second"] / figures["transformers_tokens_per_second"]
    figures["ratio"] = round(ratio, 3)
    figures["optimizer_tflop_per_step"] = figures.pop("transformers_optimizer_tflop")
    for side in ("ours", "transformers"):
        if not has_fallen([figures[f"{side}_{which}_loss"] for which in ("first", "last")]):
            raise CheckError(f"the loss of {side} did not fall", figures)
    if machine.on_gpu and figures["ours_compile_seconds"] is None:
        raise CheckError("our blocks could not be compiled", figures)
    return figures


def ours(
    machine: Machine,
    sizes: ModelConfig,
    training: Training,
    warm_up: int,
    steps: int,
) -> Figures:
    """Run `fit`, with compiled blocks on a GPU. It waits for the device in every step."""
    model = made_up.model(sizes, machine.device)
    clock = _Clock(machine, warm_up, warm_up + steps)
    compute = made_up.compute(compile="on" if machine.on_gpu else "off")
    with TemporaryDirectory() as scratch:
        fitted = fit(
            model,
            made_up.Windows(sizes, training.batch_size),
            next_token_loss(0.0),
            training=training,
            compute=compute,
            steps=warm_up + steps,
            scratch=Path(scratch),
            report=made_up.Listener(clock.tick),
            guard={},
        )
    return {
        "tokens_per_second": steps * training.batch_size * sizes.context / clock.seconds,
        "first_loss": fitted.metrics[0]["loss"],
        "last_loss": fitted.metrics[-1]["loss"],
        "precision": fitted.figures["precision"],
        "compile_seconds": fitted.figures["compile_seconds"],
    }


def theirs(
    machine: Machine,
    sizes: ModelConfig,
    training: Training,
    warm_up: int,
    steps: int,
) -> Figures:
    """Do the same with transformers' model. On a CPU it is only traced: compiling takes long.

    If memory does not suffice for a batch, micro-batches of half the rows are tried.
    """
    micro = training.batch_size
    while True:
        try:
            return _theirs(machine, sizes, training, warm_up, steps, micro)
        except torch.OutOfMemoryError:
            if micro == 1:
                raise
        micro //= 2
        machine.release()


def _theirs(
    machine: Machine,
    sizes: ModelConfig,
    training: Training,
    warm_up: int,
    steps: int,
    micro: int,
) -> Figures:
    model: Any = LlamaForCausalLM(LlamaConfig(**sizes.to_checkpoint().to_json()))
    model.to(machine.device).train()
    dtype = precision.choose(made_up.compute(), machine.device).dtype
    optimizers = make_optimizers(model, training, dtype)

    def loss(ids_RT: Tensor, labels_RT: Tensor) -> Tensor:
        logits = model(input_ids=ids_RT, use_cache=False).logits
        return cross_entropy(logits.flatten(0, 1).float(), labels_RT.flatten(), reduction="sum")

    backend = "inductor" if machine.on_gpu else "aot_eager"
    compiled: Callable[[Tensor, Tensor], Tensor] = torch.compile(loss, backend=backend)
    batches = made_up.Windows(sizes, training.batch_size)
    started = perf_counter()
    clock = _Clock(machine, warm_up, warm_up + steps)
    losses: list[float] = []
    for step in range(warm_up + steps):
        set_learning_rate(optimizers, schedule(training, step, warm_up + steps))
        total = torch.zeros((), device=machine.device)
        for first in range(0, training.batch_size, micro):
            rows = batches.rows(step, first, micro)
            ids, labels = (rows[name].to(machine.device) for name in ("ids", "labels"))
            with precision.autocast(dtype, machine.device):
                part = compiled(ids, labels)
            part.backward()
            total += part.detach()
        count = training.batch_size * sizes.context
        norm = float(gradient_norm(model)) / count
        factor = min(1.0, training.stability.grad_clip / max(norm, 1e-12)) / count
        gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
        torch._foreach_mul_(gradients, factor)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        losses.append(float(total) / count)
        if step == 0:
            first_step = perf_counter() - started
        clock.tick(step + 1)
    return {
        "tokens_per_second": steps * training.batch_size * sizes.context / clock.seconds,
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "micro_batch_rows": micro,
        "first_step_seconds": round(first_step, 1),
        "optimizer_tflop": _muon_flops(optimizers) / 1e12,
    }


def _muon_flops(optimizers: list[torch.optim.Optimizer]) -> int:
    """FLOPs of the matrix products of one update."""
    return update_flops(
        (weight.shape[0], weight.shape[1])
        for optimizer in optimizers
        if isinstance(optimizer, Muon)
        for group in optimizer.param_groups
        for weight in group["params"]
    )


class _Clock:
    """Measures seconds between the ends of two steps, with the device's work."""

    def __init__(self, machine: Machine, first: int, last: int):
        self._machine = machine
        self._first = first
        self._last = last
        self._started = 0.0
        self.seconds = 0.0

    def tick(self, done: int) -> None:
        """Start or stop the clock if `done` steps are the first or last to count."""
        if done not in (self._first, self._last):
            return
        self._machine.synchronize()
        if done == self._first:
            self._started = perf_counter()
        else:
            self.seconds = perf_counter() - self._started
