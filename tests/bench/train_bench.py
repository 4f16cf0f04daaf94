"""Tokens per second of our training step and of a plain transformers loop of the same shape, taking turns in one process.

    python tests/bench/train_bench.py [--threads 2] [--rounds 5] [--no-compile]

Both: bfloat16 autocast over float32 weights where the machine has it, fused AdamW, causal attention, random tokens. Ours is the step
that pretrain runs (fused loss, matrix attention, blocks compiled as in runs that are long enough). Gives one JSON line per shape; `ratio`
is by wall time, `cpu_ratio` by CPU seconds, which is the one to read when other processes share the cores.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable

import torch
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM

from stages.lm import precision
from stages.lm.config import Compute, ModelConfig, Training
from stages.lm.loss import token_loss
from stages.lm.model import LanguageModel
from stages.lm.optim import make_optimizers

SHAPES = {
    "small": (ModelConfig(vocab_size=8192, width=256, layers=6, heads=4, kv_heads=4, ffn_width=688, context=512), 4),
    "tiny": (ModelConfig(vocab_size=4096, width=128, layers=4, heads=4, kv_heads=4, ffn_width=344, context=256), 16),
}
TARGET = 1.3
Step = Callable[[torch.Tensor], None]


def ours(config: ModelConfig, compiled: bool) -> Step:
    model = LanguageModel(config)
    model.initialize(0)
    (optimizer,) = make_optimizers(model, Training.model_validate({"optimizer": "adamw"}))
    dtype = precision.matmul_dtype(Compute.model_validate({}), torch.device("cpu"))
    if compiled:
        for block in model.model.layers:
            block.compile()

    def step(tokens: torch.Tensor) -> None:
        with precision.autocast(dtype, torch.device("cpu")):
            total, _ = model(tokens[:, :-1], lambda hidden, table: token_loss(hidden, table, tokens[:, 1:]))
        (total / tokens[:, 1:].numel()).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def theirs(config: ModelConfig) -> Step:
    model = LlamaForCausalLM(LlamaConfig(**config.to_hf())).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), fused=True)
    dtype = precision.matmul_dtype(Compute.model_validate({}), torch.device("cpu"))

    def step(tokens: torch.Tensor) -> None:
        with precision.autocast(dtype, torch.device("cpu")):
            logits = model(input_ids=tokens[:, :-1], use_cache=False).logits
        cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def compare(config: ModelConfig, rows: int, rounds: int, compiled: bool) -> dict[str, object]:
    """Medians over rounds; each round times both, one after the other."""
    steps = {"ours": ours(config, compiled), "transformers": theirs(config)}
    tokens = torch.randint(0, config.vocab_size, (rows, config.context + 1), generator=torch.Generator().manual_seed(0))
    first = {}
    for name, step in steps.items():
        started = time.perf_counter()
        step(tokens)
        first[name] = time.perf_counter() - started
        step(tokens)
    wall: dict[str, list[float]] = {name: [] for name in steps}
    cpu: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            at, used = time.perf_counter(), time.process_time()
            for _ in range(3):
                step(tokens)
            wall[name].append((time.perf_counter() - at) / 3)
            cpu[name].append((time.process_time() - used) / 3)
    count = rows * config.context
    rate = {name: count / statistics.median(times) for name, times in wall.items()}
    spent = {name: statistics.median(times) for name, times in cpu.items()}
    return {
        "tokens_per_second": {name: round(value) for name, value in rate.items()},
        "best": {name: round(count / min(times)) for name, times in wall.items()},
        "ratio": round(rate["ours"] / rate["transformers"], 2),
        "cpu_ratio": round(spent["transformers"] / spent["ours"], 2),
        "target": TARGET,
        "gflops_per_second": round(rate["ours"] * config.flops_per_token() / 1e9),
        "first_step_seconds": round(first["ours"], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-compile", action="store_true", help="our blocks as they are, as in short runs")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for name, (config, rows) in SHAPES.items():
        result = compare(config, rows, arguments.rounds, not arguments.no_compile)
        about = {"bench": "train", "shape": name, "threads": arguments.threads, "compiled": not arguments.no_compile}
        print(json.dumps({**about, **result, "load": round(os.getloadavg()[0], 1)}), flush=True)


if __name__ == "__main__":
    main()
