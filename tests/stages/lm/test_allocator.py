"""Memory that a step frees stays with the process for the next step."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

# Allocates and frees tensors as a step of recipe `tiny` does, and prints the size of the C
# library's pool in bytes, before and after they are freed. mallinfo2 (glibc 2.33 and later) is the
# library's own account: how the kernel maps pages does not enter it.
STEPS = """
import ctypes, sys
import torch
from stages.lm import allocator

FIELDS = ("arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost").split()

class Account(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in FIELDS]

mallinfo2 = ctypes.CDLL(None).mallinfo2
mallinfo2.restype = Account

def held():
    account = mallinfo2()
    return account.arena + account.hblkhd

if sys.argv[1] == "kept":
    assert allocator.keep_freed_memory()
tensors = [torch.ones(1 << 22) for _ in range(4)]
in_use = held()
del tensors
print(in_use, held())
"""

TENSOR_BYTES = 4 * 4 * (1 << 22)


def pool_bytes(mode: str) -> tuple[int, int]:
    """Bytes that the process holds while the tensors of a step live, and afterwards."""
    command = [sys.executable, "-c", STEPS, mode]
    printed = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    in_use, afterwards = printed.split()
    return int(in_use), int(afterwards)


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="this C library has no mallinfo2"
)
def test_the_process_keeps_the_memory_that_a_step_frees() -> None:
    in_use, afterwards = pool_bytes("kept")
    assert in_use >= TENSOR_BYTES
    assert afterwards == in_use
    in_use, afterwards = pool_bytes("default")
    assert afterwards <= in_use - TENSOR_BYTES
