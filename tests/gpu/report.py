"""The results of the checks, as lines for a terminal and as one JSON file."""

from __future__ import annotations

import json
import math
import platform
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from tests.gpu.machine import CheckError, Figures, Machine, bfloat16_peak

Check = Callable[[Machine], Figures]
PACKAGES = ("torch", "triton", "transformers", "tokenizers", "pyarrow", "safetensors", "pydantic")
TAIL = 12  # lines of a traceback that are kept
FLOPS = (
    "MFU = tokens/s * FLOPs per token / peak FLOP/s of dense bfloat16 products. FLOPs per token "
    "are those of ModelConfig.flops_per_token: 6 per weight that a token is multiplied with "
    "(forward and backward, the output table included), and 6 * layers * context * heads * width "
    "of a head for causal attention. The optimizer's FLOPs are not among them: Muon's matrix "
    "products are counted apart, as optimizer_tflop_per_step."
)


@dataclass(frozen=True)
class Outcome:
    """The result of one check.

    Attributes:
        name: Name of the check.
        seconds: How long it took.
        figures: What it measured.
        failure: Why it failed, in one line. None if it passed.
        traceback: Last lines of the traceback, if it failed.
    """

    name: str
    seconds: float
    figures: Figures = field(default_factory=dict)
    failure: str | None = None
    traceback: list[str] = field(default_factory=list)

    def line(self) -> str:
        """The check as a line of the table."""
        known = {name: value for name, value in self.figures.items() if value is not None}
        figures = ", ".join(f"{name} {_short(value)}" for name, value in known.items())
        if self.failure is not None:
            found = f" ({figures})" if figures else ""
            figures = f"FAILED: {self.failure}{found}"
        return f"{self.name:<17}{self.seconds:7.1f} s  {figures}"


def attempt(name: str, check: Check, machine: Machine) -> Outcome:
    """Run one check. An exception becomes part of the outcome, so that the others still run."""
    torch.manual_seed(0)  # transformers' weights come from the generator of the process
    started = perf_counter()
    try:
        figures = check(machine)
    except Exception as error:
        found = error.figures if isinstance(error, CheckError) else {}
        kind = "" if isinstance(error, CheckError) else f"{type(error).__name__}: "
        reason = (kind + " ".join(str(error).split()))[:300]
        tail = "".join(traceback.format_exception(error)).splitlines()[-TAIL:]
        return Outcome(name, round(perf_counter() - started, 2), _plain(found), reason, tail)
    return Outcome(name, round(perf_counter() - started, 2), _plain(figures))


def write(
    path: Path,
    machine: Machine,
    outcomes: list[Outcome],
    not_run: list[str],
    seconds: float,
) -> None:
    """Write all results as JSON."""
    found = {
        "device": about(machine),
        "versions": {name: _version(name) for name in PACKAGES} | {"cuda": torch.version.cuda},
        "small": machine.small,
        "seconds": round(seconds, 1),
        "flops": FLOPS,
        "passed": not not_run and all(outcome.failure is None for outcome in outcomes),
        "checks": [asdict(outcome) for outcome in outcomes],
        "not_run": not_run,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1, allow_nan=False) + "\n", "utf-8")


def about(machine: Machine) -> Figures:
    """Properties of the device and of this process that affect the figures."""
    found: Figures = {
        "name": machine.name,
        "type": machine.device.type,
        "bfloat16_peak_tflops": None,
        "machine": platform.machine(),
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
    }
    if machine.on_gpu:
        properties = torch.cuda.get_device_properties(machine.device)
        peak = bfloat16_peak(machine.name)
        found |= {
            "bfloat16_peak_tflops": peak and peak / 1e12,
            "capability": f"{properties.major}.{properties.minor}",
            "memory_gb": round(properties.total_memory / 1e9, 1),
        }
    return found


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _plain(figures: Figures) -> Figures:
    """Values as JSON can hold them. Others, and numbers that are not finite, become text."""
    return {name: _plain_value(value) for name, value in figures.items()}


def _plain_value(value: Any) -> Any:
    is_finite = not isinstance(value, float) or math.isfinite(value)
    if is_finite and isinstance(value, bool | int | float | str | None):
        return value
    return str(value)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if type(value) is int else str(value)
