"""Chooses the number format of the matrix products, the threads, and whether to compile.

Weights, sums and optimizer state always stay in float32. Only the matrix products may run in
bfloat16, and only where the machine multiplies it natively: a CPU that emulates it is up to a
hundred times slower. float16 is never used, for the same reason and because it needs loss scaling.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from data_contracts import ConfigError
from stages.execution.cores import cores
from stages.lm import allocator
from stages.lm.training.config import Compute

X86_BFLOAT16 = ("amx_bf16", "avx512_bf16")
ARM_BFLOAT16 = ("bf16", "sve_bf16")
# Environment variables that limit the instructions of oneDNN, which computes the products.
ISA_LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
BFLOAT16_LIMITS = ("BF16", "FP16", "AMX", "AVX10", "DEFAULT", "ALL")  # those that allow bfloat16
# FLOPs of a run from which compiling pays. It takes 10 to 40 s. On a CPU whose threads each have
# rows of their own it saves next to nothing, on one thread a seventh of a step (decision 0017).
COMPILE_PAYS_FROM = {
    ("cpu", "bfloat16"): 1e15,
    ("cpu", "float32"): 1e15,
    ("cuda", "bfloat16"): 1e16,
    ("cuda", "float32"): 1e16,
}


def device_of() -> torch.device:
    """Return the device of this process: one GPU of the machine, or the CPU if there is none."""
    if torch.cuda.is_available():
        local_rank = int(os.environ.get("LOCAL_RANK", 0))
        return torch.device("cuda", local_rank % torch.cuda.device_count())
    return torch.device("cpu")


@dataclass(frozen=True)
class Precision:
    """The format of the matrix products.

    Attributes:
        dtype: float32 or bfloat16.
        reason: Why it was chosen, as the end of a sentence.
    """

    dtype: torch.dtype
    reason: str

    @property
    def name(self) -> str:
        """float32 or bfloat16."""
        return str(self.dtype).removeprefix("torch.")


def choose(compute: Compute, device: torch.device) -> Precision:
    """Decide between bfloat16 and float32, for the model, the loss and the optimizer alike.

    On ARM, `auto` means float32 even if the CPU has bfloat16 instructions, because nobody has
    measured whether they are faster. The setting must ask for bfloat16 there.

    Args:
        compute: The setting `compute.precision`.
        device: The device that computes the products.

    Raises:
        ConfigError: The setting asks for bfloat16, but the machine has no instructions for it.
    """
    if compute.precision == "float32":
        return Precision(torch.float32, "compute.precision asks for it")
    native, reason = _native_bfloat16(device)
    if compute.precision == "auto":
        return Precision(torch.bfloat16 if native else torch.float32, reason)
    if native or _has(device, ARM_BFLOAT16):
        return Precision(torch.bfloat16, "compute.precision asks for it")
    raise ConfigError("compute.precision = 'bfloat16'", reason, "use auto or float32")


def matmul_dtype(compute: Compute, device: torch.device) -> torch.dtype:
    """Return the format that `choose` decides on."""
    return choose(compute, device).dtype


def autocast(
    dtype: torch.dtype, device: torch.device, keep_casts: bool = True
) -> AbstractContextManager[None]:
    """Matrix products in `dtype` inside this context.

    Args:
        dtype: float32 or bfloat16.
        device: The device that computes the products.
        keep_casts: Cast each weight once in the context. All threads share what is kept, so passes
            that run at the same time would share parts of their graphs.
    """
    return torch.autocast(
        device.type,
        torch.bfloat16,
        enabled=dtype is torch.bfloat16,
        cache_enabled=keep_casts,
    )


def product_dtype(x: Tensor) -> torch.dtype:
    """Return the format of matrix products of `x` here: that of the active autocast, or its own."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def set_threads(compute: Compute) -> int:
    """Set and return the threads of this process's matrix products.

    The processes of a machine share its cores: two that each use all cores are six times slower.
    The process also keeps the memory that it frees, for its next step.

    Args:
        compute: The setting `compute.threads`.
    """
    allocator.keep_freed_memory()
    threads = compute.threads or max(1, cores() // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
    torch.set_num_threads(threads)
    return threads


def should_compile(compute: Compute, flops: float, device: torch.device) -> bool:
    """Return whether to compile the blocks for a run of `flops` floating-point operations.

    Args:
        compute: The settings `compute.compile` and `compute.precision`.
        flops: Floating-point operations of the run, on this device.
        device: The device that computes them.
    """
    if compute.compile != "auto":
        return compute.compile == "on"
    compiler = device.type == "cuda" or shutil.which(os.environ.get("CXX", "g++"))
    return bool(compiler) and flops > COMPILE_PAYS_FROM[device.type, choose(compute, device).name]


def compile_blocks(blocks: Iterable[nn.Module]) -> None:
    """Compile each block in place.

    The first call of a block makes its kernels, which are cached for later processes.

    Args:
        blocks: The blocks of a model.
    """
    _separate_kernel_caches()
    for block in blocks:
        block.compile()


def _separate_kernel_caches() -> None:
    """Give each instruction set its own folder of kernels, unless the user has set a folder.

    Inductor's cache key does not include the instruction set. With AVX2 and AVX-512 kernels in one
    cache, training gave NaN in one process and crashed in another.
    """
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir  # slow to import

    capability = torch.backends.cpu.get_cpu_capability().replace(" ", "_")
    given = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    if given in (None, default_cache_dir()):  # torch sets the variable to its default at first use
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = f"{default_cache_dir()}_{capability}"


def _native_bfloat16(device: torch.device) -> tuple[bool, str]:
    """Return whether this device multiplies bfloat16 natively and fast, and why."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return True, f"{name} has bfloat16 instructions"
        return False, f"{name} has no bfloat16 instructions"
    for variable in ISA_LIMITS:
        limit = os.environ.get(variable, "")
        if limit and not any(word in limit.upper() for word in BFLOAT16_LIMITS):
            return False, f"{variable}={limit} rules out bfloat16 instructions"
    found = _has(device, X86_BFLOAT16)
    if found:
        return True, f"this CPU has {found}"
    found = _has(device, ARM_BFLOAT16)
    if found:
        return False, f"on ARM, bfloat16 ({found}) is used only if compute.precision asks for it"
    return False, "this CPU has no bfloat16 instructions"


def _has(device: torch.device, instructions: tuple[str, ...]) -> str:
    """Return the first of these instruction sets, by torch's names, that the CPU has, or ""."""
    capabilities = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return next((name for name in instructions if capabilities.get(name)), "")
