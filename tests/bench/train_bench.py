"""Tokens per second of our training step and of a transformers loop, which take turns.

    python -m tests.bench.train_bench [--threads 2] [--rounds 5] [--compile on|off|auto]

Both sides do what a step of `fit` does with default settings: 16 rows in micro-batches, the native
format of the machine, clipping, Muon for the matrices and AdamW for the rest. They begin with the
same weights and read the same random tokens, so that their losses end alike. Only model and loss
differ: ours are those of pretrain, its blocks compiled where a run of the default length has them
compiled; theirs are LlamaForCausalLM and torch's cross_entropy, with the micro-batch that is
fastest for them. Ours runs parts of a micro-batch at the same time, as a run does; theirs shares
each operation among the threads.

One JSON line a shape; times are medians over rounds. `ratio` is by wall time, `cpu_ratio` by CPU
seconds: read that one when other processes share the cores. FLOPs are those of the model, forward
and backward, and those of Muon's matrix products; what AdamW does is not counted. The GEMM peak is
that of the fastest square product in the same run, in the same format, on as many threads.

Shapes: B rows, T tokens.
"""

from __future__ import annotations

import argparse
import statistics
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM

from stages.lm import precision
from stages.lm.config import ModelConfig
from stages.lm.model import LanguageModel
from stages.lm.training.batches import Batch
from stages.lm.training.config import Compute, Training
from stages.lm.training.muon import Muon, update_flops
from stages.lm.training.optimizers import gradient_norm, make_optimizers
from stages.lm.training.step import (
    StepParts,
    TrainingStep,
    choose_micro_batch_size,
    training_step,
)
from stages.pretrain.stage import next_token_loss
from tests.bench import machine

CPU = torch.device("cpu")
D256: dict[str, Any] = {"width": 256, "layers": 6, "ffn_width": 704, "context": 512}
SMALL: dict[str, Any] = {"width": 32, "layers": 1, "ffn_width": 64, "context": 16}
SHAPES = {
    "d256": ModelConfig(vocab_size=8192, **D256),  # as in recipe laptop
    "d128": ModelConfig(vocab_size=4096),  # the default
}
SMALL_SHAPES = {"small": ModelConfig(vocab_size=64, **SMALL)}
STEPS = 3  # of each side in a round
GEMM_SIZES, SMALL_GEMM_SIZES = (512, 1024), (64,)
GEMM_TIMES, GEMMS = 3, 10  # a size is timed three times in a round, over ten products each


@dataclass
class Loop(ABC):
    """A training loop over a model whose parameters have transformers' names.

    micro: rows of a forward pass. optimizer_seconds: spent in updates so far. loss: mean of the
    last step.
    """

    model: Any
    dtype: torch.dtype
    micro: int
    training: Training = field(default_factory=Training)
    optimizer_seconds: float = 0.0
    loss: float = 0.0

    def __post_init__(self) -> None:
        self.optimizers = make_optimizers(self.model, self.training, self.dtype)

    def step(self, tokens_BT: Tensor) -> None:
        """As `fit` takes it."""
        summed = self.add_gradients(tokens_BT)
        scale = 1 / tokens_BT[:, 1:].numel()
        self.loss = summed * scale
        norm = float(gradient_norm(self.model)) * scale
        factor = scale * min(1.0, self.training.stability.grad_clip / max(norm, 1e-12))
        gradients = [weight.grad for weight in self.model.parameters() if weight.grad is not None]
        torch._foreach_mul_(gradients, factor)
        started = time.perf_counter()
        for optimizer in self.optimizers:
            optimizer.step()
        self.optimizer_seconds += time.perf_counter() - started
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)

    @abstractmethod
    def add_gradients(self, tokens_BT: Tensor) -> float:
        """Add the gradients of a batch to the parameters, and return its summed loss."""

    def muon_flops(self) -> int:
        """FLOPs of Muon's matrix products in one step."""
        groups: list[dict[str, Any]] = []
        for optimizer in self.optimizers:
            if isinstance(optimizer, Muon):
                groups += optimizer.param_groups
        matrices = [matrix for group in groups for matrix in group["params"]]
        return update_flops(tuple(matrix.shape) for matrix in matrices)


class OneBatch:
    """The same tokens in every step."""

    def __init__(self, tokens_BT: Tensor):
        self.tokens_BT = tokens_BT
        self.rows_per_epoch = len(tokens_BT)

    def rows(self, step: int, first: int, count: int) -> Batch:
        """`count` rows."""
        part_BT = self.tokens_BT[first : first + count]
        return {"ids": part_BT[:, :-1], "labels": part_BT[:, 1:]}

    def documents(self, step: int) -> list[str]:
        """None."""
        return []


class OurLoop(Loop):
    """The same loop, with the passes of `fit`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.passes: TrainingStep | None = None  # keeps its threads from step to step

    def add_gradients(self, tokens_BT: Tensor) -> float:
        """Add the gradients of a batch to the parameters, and return its summed loss."""
        if self.passes is None:
            parts = StepParts(
                model=self.model,
                batches=OneBatch(tokens_BT),
                loss=next_token_loss(self.training.stability.z_loss),
                rows_per_rank=len(tokens_BT),
                micro_batch_size=self.micro,
                dtype=self.dtype,
                device=CPU,
            )
            self.passes = training_step(parts)
        return self.passes.run(0).means["loss"] * tokens_BT[:, 1:].numel()


class TheirLoop(Loop):
    """The same loop with a model of transformers and torch's loss, on all threads at once."""

    def add_gradients(self, tokens_BT: Tensor) -> float:
        """Add the gradients of a batch to the parameters, and return its summed loss."""
        summed = 0.0
        for part_BT in tokens_BT.split(self.micro):
            with precision.autocast(self.dtype, CPU):
                logits_BTV = self.model(input_ids=part_BT[:, :-1], use_cache=False).logits
                total = cross_entropy(
                    logits_BTV.flatten(0, 1).float(),
                    part_BT[:, 1:].flatten(),
                    reduction="sum",
                )
            total.backward()
            summed += float(total.detach())
        return summed


@dataclass(frozen=True)
class Took:
    """Seconds of one step, the mean of a few."""

    wall: float
    cpu: float
    optimizer: float


def timed(loop: Loop, tokens_BT: Tensor, steps: int) -> Took:
    """Take `steps` steps."""
    updates = loop.optimizer_seconds
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(steps):
        loop.step(tokens_BT)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return Took(wall / steps, cpu / steps, (loop.optimizer_seconds - updates) / steps)


def ours(config: ModelConfig, dtype: torch.dtype, micro: int, compiled: bool) -> Loop:
    """The model and the loss of pretrain."""
    model = LanguageModel(config)
    model.initialize(0)
    if compiled:
        precision.compile_blocks(model.model.layers)
    return OurLoop(model, dtype, micro)


def theirs(config: ModelConfig, like: nn.Module, dtype: torch.dtype, micro: int) -> Loop:
    """transformers' model with the weights of `like`."""
    model = LlamaForCausalLM(LlamaConfig(**config.to_checkpoint().to_json())).train()
    model.load_state_dict(like.state_dict(), strict=False)  # the tied output table has no entry
    return TheirLoop(model, dtype, micro)


def fastest_micro_batch(loop: Loop, tokens_BT: Tensor) -> int:
    """The best of a quarter of, half of, the same as and twice its rows of a forward pass."""
    rows = loop.micro
    took: dict[int, float] = {}
    timed(loop, tokens_BT, 1)
    for micro in {max(1, rows // 4), max(1, rows // 2), rows, min(len(tokens_BT), 2 * rows)}:
        loop.micro = micro
        took[micro] = timed(loop, tokens_BT, 1).wall
    return min(took, key=lambda micro: took[micro])


def gemm_flops_per_second(dtype: torch.dtype, sizes: tuple[int, ...]) -> float:
    """Of the fastest product of two square matrices."""
    best = 0.0
    for size in sizes:
        a, b = (torch.randn(size, size).to(dtype) for _ in range(2))
        out = torch.mm(a, b)
        for _ in range(GEMM_TIMES):
            started = time.perf_counter()
            for _ in range(GEMMS):
                torch.mm(a, b, out=out)
            best = max(best, 2 * GEMMS * size**3 / (time.perf_counter() - started))
    return best


def targets(shape: str, dtype: torch.dtype) -> dict[str, float]:
    """What is to be reached on this machine."""
    wanted = {"ratio": 1.4 if dtype is torch.bfloat16 else 1.25}
    if shape == "d256":
        wanted["share_of_gemm_peak"] = 0.55  # at least
    if shape == "d128" and dtype is torch.float32:
        wanted["optimizer_share"] = 0.10  # at most
    return wanted


def compare(config: ModelConfig, given: argparse.Namespace) -> dict[str, Any]:
    """Figures of one shape. A round has the GEMMs and both sides, one after the other."""
    training = Training()
    compute = Compute(
        compile=given.compile,
        threads=given.threads,
        micro_batch_size=given.micro_batch_rows,
    )
    threads = precision.set_threads(compute)
    dtype = precision.choose(compute, CPU).dtype
    count = training.batch_size * config.context
    flops = config.flops_per_token() * count
    steps = training.steps(config.context, 1)
    compiled = precision.should_compile(compute, flops * steps, CPU)
    micro = choose_micro_batch_size(
        training.batch_size, compute.micro_batch_size, config.context, CPU
    )

    shape = (training.batch_size, config.context + 1)
    generator = torch.Generator().manual_seed(0)
    tokens_BT = torch.randint(config.vocab_size, shape, generator=generator)
    mine = ours(config, dtype, micro, compiled)
    their_micro = given.their_micro_batch_rows
    if not their_micro:  # tried on a loop of its own, so that both sides take as many steps
        their_micro = fastest_micro_batch(theirs(config, mine.model, dtype, micro), tokens_BT)
    loops = {"ours": mine, "transformers": theirs(config, mine.model, dtype, their_micro)}
    first = {name: timed(loop, tokens_BT, 1) for name, loop in loops.items()}

    sizes = SMALL_GEMM_SIZES if given.small else GEMM_SIZES
    peak = 0.0
    rounds: dict[str, list[Took]] = {name: [] for name in loops}
    for _ in range(given.rounds):
        peak = max(peak, gemm_flops_per_second(dtype, sizes))
        for name, loop in loops.items():
            rounds[name].append(timed(loop, tokens_BT, STEPS))
    about = {
        "rows": training.batch_size,
        "micro_batch_rows": {name: loop.micro for name, loop in loops.items()},
        "optimizers": [type(optimizer).__name__ for optimizer in mine.optimizers],
        "compiled": compiled,
        "threads": threads,
        "first_step_seconds": {name: took.wall for name, took in first.items()},
        "loss": {name: loop.loss for name, loop in loops.items()},
    }
    return about | figures(rounds, count, flops, mine.muon_flops(), peak)


def figures(
    rounds: dict[str, list[Took]],
    count: int,
    flops: int,
    muon_flops: int,
    peak: float,
) -> dict[str, Any]:
    """What follows from the times of both sides for `count` tokens a step."""
    wall: dict[str, float] = {}
    cpu: dict[str, float] = {}
    best: dict[str, float] = {}
    share: dict[str, float] = {}
    for name, took in rounds.items():
        wall[name] = statistics.median([one.wall for one in took])
        cpu[name] = statistics.median([one.cpu for one in took])
        best[name] = count / min(one.wall for one in took)
        share[name] = statistics.median([one.optimizer / one.wall for one in took])
    per_step = {"model": flops, "muon": muon_flops, "both": flops + muon_flops}
    rate = {name: number / wall["ours"] for name, number in per_step.items()}
    return {
        "tokens_per_second": {name: count / seconds for name, seconds in wall.items()},
        "best_tokens_per_second": best,
        "ratio": wall["transformers"] / wall["ours"],
        "cpu_ratio": cpu["transformers"] / cpu["ours"],
        "optimizer_share": share["ours"],
        "transformers_optimizer_share": share["transformers"],
        "gflop_per_step": {name: number / 1e9 for name, number in per_step.items()},
        "gflops_per_second": {name: number / 1e9 for name, number in rate.items()},
        "gemm_peak_gflops_per_second": peak / 1e9,
        "share_of_gemm_peak": rate["both"] / peak,
    }


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=0, help="0: all cores, as in a run")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compile", choices=("auto", "on", "off"), default="auto")
    parser.add_argument("--micro-batch-rows", type=int, default=0, help="ours; 0: as in a run")
    parser.add_argument("--their-micro-batch-rows", type=int, default=0, help="0: the fastest")
    parser.add_argument("--shape", choices=tuple(SHAPES), help="only this one")
    parser.add_argument("--small", action="store_true", help="a tiny shape: to see that it runs")
    given = parser.parse_args(arguments)
    shapes = SMALL_SHAPES if given.small else SHAPES
    chosen = precision.choose(Compute(), CPU)
    for name in [given.shape] if given.shape and not given.small else shapes:
        torch.compiler.reset()  # sizes that change in one process would be compiled as variables
        found = compare(shapes[name], given)
        machine.report(
            {
                "bench": "train",
                "shape": name,
                "precision": chosen.name,
                "precision_reason": chosen.reason,
                **found,
                "targets": targets(name, chosen.dtype),
            }
        )


if __name__ == "__main__":
    main()
