"""Which number format the matrix products use, and how many threads: chosen for the machine, told in the facts.

Weights, sums and optimizer state stay in float32 always; only the matrix products may run in bfloat16. float16 is never used:
without native support it is a hundred times slower on a CPU, and it needs loss scaling.
"""

from __future__ import annotations

import os
import shutil
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from data_contracts import ConfigError
from stages.lm.config import Compute
from stages.shards import cores

COMPILE_PAYS_FROM = {"cpu": 2e13, "cuda": 1e16}  # FLOPs of a run: compiling saves a quarter to a third and takes 10 to 40 s


def device_of() -> torch.device:
    """The device of this process: its own GPU if there are any, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
    return torch.device("cpu")


def matmul_dtype(compute: Compute, device: torch.device) -> torch.dtype:
    """bfloat16 or float32.

    On ARM, `auto` is float32 also where the CPU has bfloat16: whether that is faster there has not been measured. It must be asked for.
    Raises ConfigError if bfloat16 is demanded of a CPU that has no instructions for it: it would be slower than float32.
    """
    native = _native_bfloat16(device)
    if compute.precision == "bfloat16" and (native or _arm_bfloat16(device)):
        return torch.bfloat16
    if compute.precision == "bfloat16":
        raise ConfigError("compute.precision = 'bfloat16'", f"this {device.type} has no bfloat16 instructions", "use auto or float32")
    return torch.bfloat16 if native and compute.precision == "auto" else torch.float32


def autocast(dtype: torch.dtype, device: torch.device) -> AbstractContextManager[None]:
    """Matrix products in `dtype` inside this context."""
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype is torch.bfloat16)


def product_dtype(x: Tensor) -> torch.dtype:
    """What matrix products of `x` are made in here: the format of the autocast around it, else its own."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def set_threads(compute: Compute) -> int:
    """Threads for this process's matrix products; two processes that take all cores each slow each other down sixfold."""
    threads = compute.threads or max(1, cores() // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
    torch.set_num_threads(threads)
    return threads


def should_compile(compute: Compute, flops: float, device: torch.device) -> bool:
    """Whether to compile the blocks of a run of so many FLOPs."""
    if compute.compile != "auto":
        return compute.compile == "on"
    compiler = device.type == "cuda" or shutil.which(os.environ.get("CXX", "g++"))
    return bool(compiler) and flops > COMPILE_PAYS_FROM[device.type]


def _native_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return _able(device, "amx_bf16", "avx512_bf16")


def _arm_bfloat16(device: torch.device) -> bool:
    return _able(device, "bf16", "sve_bf16")


def _able(device: torch.device, *instructions: str) -> bool:
    """Whether the CPU has one of these; the names are those of torch."""
    able = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return any(able.get(name) for name in instructions)
