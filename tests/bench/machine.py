"""The machine that a benchmark runs on: every line of figures names it.

A figure without its CPU cannot be compared with another. What a system does not say is left out;
nothing here fails for want of it.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from stages.execution.cores import cores

# Instructions that decide how fast matrices are multiplied, by their names in /proc/cpuinfo.
FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "sve", "bf16", "svebf16")
SYSCTL_FLAGS = {
    "hw.optional.avx2_0": "avx2",
    "hw.optional.avx512f": "avx512f",
    "hw.optional.AdvSIMD": "asimd",
    "hw.optional.neon": "asimd",
    "hw.optional.arm.FEAT_BF16": "bf16",
}
# Variables that change what torch does with the CPU: where one is set, it belongs to the figures.
SETTINGS = (
    "ATEN_CPU_CAPABILITY",
    "ONEDNN_MAX_CPU_ISA",
    "DNNL_MAX_CPU_ISA",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OMP_WAIT_POLICY",
    "GOMP_SPINCOUNT",
)
DIGITS = 4  # significant ones of a figure; the next would be noise


def report(figures: Mapping[str, Any]) -> None:
    """Print one JSON line: the figures, the CPU, and the load average of the last minute.

    Raises:
        ValueError: A figure is infinite or not a number.
    """
    line = {**_rounded(figures), "cpu": cpu(), "load": load()}
    print(json.dumps(line, allow_nan=False), flush=True)


def cpu() -> dict[str, Any]:
    """Name, cores that this process may use, flags that matter, and settings that bear on them."""
    name, flags = _identified()
    found = {"name": name, "cores": cores(), "flags": list(flags)}
    settings = {variable: os.environ[variable] for variable in SETTINGS if variable in os.environ}
    return found | {"settings": settings} if settings else found


def load() -> float | None:
    """Processes that wanted a core in the last minute, on average; None where nobody counts."""
    try:
        return round(os.getloadavg()[0], 1)
    except (AttributeError, OSError):
        return None


def torch_facts() -> dict[str, Any]:
    """What torch makes of this CPU, and the number format that training would choose on it."""
    import torch  # seconds to import: not for benchmarks that do without

    from stages.lm import precision
    from stages.lm.training.config import Compute

    chosen = precision.choose(Compute(), torch.device("cpu"))
    return {
        "torch": torch.__version__,
        "torch_cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "precision": chosen.name,
        "precision_reason": chosen.reason,
    }


def from_cpuinfo(text: str) -> tuple[str, tuple[str, ...]]:
    """Name and flags in /proc/cpuinfo of Linux; the name is empty on ARM, where it has none."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    name = fields.get("model name", "")
    if name and "cpu family" in fields and "model" in fields:
        # virtual machines often say no more than "AMD EPYC"; these two give the generation
        name += f" (family {fields['cpu family']}, model {fields['model']})"
    found = fields.get("flags", fields.get("Features", "")).split()
    return name, tuple(flag for flag in FLAGS if flag in found)


def from_sysctl(text: str) -> tuple[str, tuple[str, ...]]:
    """Name and flags in what sysctl of macOS prints of machdep.cpu.brand_string and hw.optional."""
    fields = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
    found = {flag for key, flag in SYSCTL_FLAGS.items() if fields.get(key) == "1"}
    name = fields.get("machdep.cpu.brand_string", "")
    return name, tuple(flag for flag in FLAGS if flag in found)


def from_lscpu(text: str) -> str:
    """The name in what lscpu prints: it knows those of ARM cores."""
    for line in text.splitlines():
        if line.startswith("Model name:"):
            return line.partition(":")[2].strip()
    return ""


@cache
def _identified() -> tuple[str, tuple[str, ...]]:
    name, flags = from_cpuinfo(_text(Path("/proc/cpuinfo")))
    if not (name or flags):
        name, flags = from_sysctl(_output("sysctl", "machdep.cpu.brand_string", "hw.optional"))
    name = name or from_lscpu(_output("lscpu")) or platform.processor() or platform.machine()
    return name or "unknown", flags


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", errors="replace")
    except OSError:
        return ""


def _output(*command: str) -> str:
    """What a program prints in English; empty if it is not there or does not end."""
    environment = os.environ | {"LC_ALL": "C"}
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            env=environment,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, Mapping):
        return {key: _rounded(inner) for key, inner in value.items()}
    return value
