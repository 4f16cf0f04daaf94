"""The device that is checked, with its name, peak and memory, and the error of a failed check."""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch._dynamo

Figures = dict[str, Any]  # name → number, text or bool, in the order to show
T = TypeVar("T")

# FLOP/s of dense bfloat16 matrix products that are summed in float32, as the vendor states them.
# Keys are parts of the device's name. If several match, the first counts.
BFLOAT16_PEAKS = {
    "GB200": 2500e12,
    "B200": 2250e12,
    "GH200": 989e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H800": 989e12,
    "A100": 312e12,
    "A800": 312e12,
    "A40": 149.7e12,
    "A30": 165e12,
    "A10": 125e12,
    "A10G": 70e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "RTX 4090": 165.2e12,
    "RTX 3090": 71e12,
}


class CheckError(Exception):
    """A check has failed.

    Attributes:
        figures: The figures found before it failed.
    """

    def __init__(self, reason: str, figures: Mapping[str, Any] | None = None):
        super().__init__(reason)
        self.figures: Figures = dict(figures or {})


@dataclass(frozen=True)
class Machine:
    """Where the checks run.

    Attributes:
        device: The device.
        small: Use tiny shapes and few steps, for a CPU.
    """

    device: torch.device
    small: bool

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a CUDA GPU."""
        return self.device.type == "cuda"

    @property
    def name(self) -> str:
        """Name of the device."""
        if self.on_gpu:
            return torch.cuda.get_device_name(self.device)
        return "CPU"

    def either(self, small: T, full: T) -> T:
        """Choose between the sizes for small and for full shapes."""
        return small if self.small else full

    def synchronize(self) -> None:
        """Wait until the device has finished all work."""
        if self.on_gpu:
            torch.cuda.synchronize(self.device)

    def release(self) -> None:
        """Free unused memory, restart its statistics, and drop compiled code."""
        torch._dynamo.reset()
        gc.collect()
        if self.on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)

    @contextmanager
    def peak_memory(self) -> Iterator[Figures]:
        """Measure the peak memory of this context, in 1e9 bytes.

        The dict that it yields has `peak_gb` at the end. Memory that was in use before counts too.
        On a CPU the value is None.
        """
        figures: Figures = {"peak_gb": None}
        self.synchronize()
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats(self.device)
        yield figures
        self.synchronize()
        if self.on_gpu:
            figures["peak_gb"] = round(torch.cuda.max_memory_allocated(self.device) / 1e9, 3)


def has_fallen(losses: Sequence[float]) -> bool:
    """Whether the last loss is less than 19/20 of the first.

    Different batches differ by less than that.
    """
    return losses[-1] < 0.95 * losses[0]


def bfloat16_peak(name: str) -> float | None:
    """Dense bfloat16 FLOP/s of a device of this name. None if the table does not have it.

    A slice of a GPU (MIG) has a fraction of the peak, which its name does not show.
    """
    if "MIG" in name:
        return None
    for key, peak in BFLOAT16_PEAKS.items():
        if re.search(rf"\b{key}\b", name):
            return peak
    return None
