"""Memory that a step frees stays mapped for the next step."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

# Allocates and frees what a step of recipe `tiny` does, and prints the page faults of the last ten.
STEPS = """
import resource, sys
import torch
from stages.lm import allocator

if sys.argv[1] == "kept":
    assert allocator.keep_freed_memory()


def step():
    tensors = [torch.ones(1 << 20) for _ in range(8)]
    return [tensor * 2 for tensor in tensors]


for _ in range(10):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(mode: str) -> int:
    command = [sys.executable, "-c", STEPS, mode]
    return int(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is a setting of glibc")
def test_steps_reuse_the_memory_of_those_before_without_page_faults() -> None:
    assert page_faults("kept") < page_faults("default") / 5
