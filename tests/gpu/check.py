"""Checks the language model on this machine's GPU and writes the results to a file.

    python -m tests.gpu.check [--device cuda] [--small] [--only NAME,NAME] [--out FILE.json]

Every check prints a line when it ends. If one fails, the line says why, and the others still run.
The exit status is 1 if any check failed or was not run. Without a GPU the checks run with small
shapes on the CPU, which takes seconds.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from time import perf_counter

import torch
from transformers.utils import logging as transformers_logging

from tests.gpu import attention, correctness, post_training, report
from tests.gpu.machine import Machine
from tests.gpu.report import Check, Outcome
from tests.gpu.speed import speed

# The checks that are most likely to fail come first, those that take minutes last.
CHECKS: dict[str, Check] = {
    "attention": attention.masked_attention,
    "attention_memory": attention.attention_memory,
    "bf16_and_fp32": correctness.bfloat16_and_float32,
    "resume": correctness.resume,
    "experts": correctness.experts,
    "sft": post_training.sft,
    "dpo": post_training.dpo,
    "generation": post_training.generation,
    "evaluation": post_training.evaluation,
    "speed_124M": speed("124M"),
    "speed_350M": speed("350M"),
}
OUT = Path("build/check_gpu.json")


def main(arguments: list[str] | None = None) -> int:
    """Run the checks. Returns the exit status."""
    options = _options(arguments)
    machine = Machine(torch.device(options.device), options.small or options.device == "cpu")
    transformers_logging.set_verbosity_error()
    torch.set_float32_matmul_precision("highest")  # some images set TF32, which is less precise
    about = report.about(machine)
    form = "small shapes" if machine.small else "full shapes"
    print(f"{about['name']}, torch {torch.__version__}, {form}", flush=True)
    started = perf_counter()
    outcomes: list[Outcome] = []
    not_run: list[str] = []
    for name in options.only:
        if perf_counter() - started > options.seconds:
            not_run.append(name)
            continue
        machine.release()
        outcomes.append(report.attempt(name, CHECKS[name], machine))
        print(outcomes[-1].line(), flush=True)
        for line in outcomes[-1].traceback:
            print("    " + line, file=sys.stderr, flush=True)
    seconds = perf_counter() - started
    report.write(options.out, machine, outcomes, not_run, seconds)
    failed = sum(outcome.failure is not None for outcome in outcomes)
    if not_run:
        print(f"not run, as {options.seconds:.0f} s were over: {', '.join(not_run)}")
    print(report.FLOPS)
    passed = f"{len(outcomes) - failed} of {len(options.only)} checks passed"
    print(f"{passed} on {about['name']} in {seconds:.0f} s: {options.out}")
    return 1 if failed or not_run else 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    summary = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.check", description=summary)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=device, choices=("cuda", "cpu"), help=f"here: {device}")
    parser.add_argument("--small", action="store_true", help="tiny shapes, as always on a CPU")
    parser.add_argument("--only", help=f"of {', '.join(CHECKS)}; default: all", type=_names)
    parser.add_argument("--out", type=Path, default=OUT, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=480, help="when no further check starts")
    options = parser.parse_args(arguments)
    options.only = options.only or list(CHECKS)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("PyTorch sees no CUDA device here")
    return options


def _names(listed: str) -> list[str]:
    names = listed.split(",")
    unknown = [name for name in names if name not in CHECKS]
    if unknown:
        raise argparse.ArgumentTypeError(f"no check is called {', '.join(unknown)}")
    return names


if __name__ == "__main__":
    sys.exit(main())
