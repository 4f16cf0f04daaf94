"""The device that is tried: its name, peak and memory; and how a check says that it failed."""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch._dynamo

Figures = dict[str, Any]  # name → number, word or truth value, in the order to show
T = TypeVar("T")

# FLOP/s of dense bfloat16 matrix products that are summed in float32, as the vendor states them.
# Keys are words of the device's name; of two that match, the first counts.
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
    """Something is not as it must be. `figures` are those that were found before."""

    def __init__(self, reason: str, figures: Mapping[str, Any] | None = None):
        super().__init__(reason)
        self.figures: Figures = dict(figures or {})


@dataclass(frozen=True)
class Machine:
    """Where the checks run. small: tiny shapes and few steps, for a CPU."""

    device: torch.device
    small: bool

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a CUDA GPU."""
        return self.device.type == "cuda"

    @property
    def name(self) -> str:
        """What the device calls itself."""
        if self.on_gpu:
            return torch.cuda.get_device_name(self.device)
        return "CPU"

    def either(self, small: T, full: T) -> T:
        """The size for tiny shapes, or the one for real ones."""
        return small if self.small else full

    def synchronize(self) -> None:
        """Wait until the device has done all that it was asked to do."""
        if self.on_gpu:
            torch.cuda.synchronize(self.device)

    def release(self) -> None:
        """Give back memory that nothing uses, begin to count it again, forget what was compiled."""
        torch._dynamo.reset()
        gc.collect()
        if self.on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)

    @contextmanager
    def peak_memory(self) -> Iterator[Figures]:
        """Gives a dict that has `peak_gb` at the end: the most memory in use inside, in 1e9 bytes.

        Memory that was in use before counts too. On a CPU it is None.
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
    """Whether the last loss is less than 19/20 of the first: more than batches differ by chance."""
    return losses[-1] < 0.95 * losses[0]


def bfloat16_peak(name: str) -> float | None:
    """Dense bfloat16 FLOP/s of a device of this name; None if it is not in the table.

    A slice of a GPU (MIG) has a part of the peak that its name does not say.
    """
    if "MIG" in name:
        return None
    words = (key for key in BFLOAT16_PEAKS if re.search(rf"\b{key}\b", name))
    return next((BFLOAT16_PEAKS[key] for key in words), None)
