"""Keeps the memory that a process has freed, so that each training step finds it mapped.

Every step allocates and frees the same tensors. By default the C library gives large ones back to
the kernel, which then maps and clears each page again at its first use: 5,000 page faults in a
step of recipe `tiny`, up to a quarter of its time on a virtual machine.
"""

from __future__ import annotations

import ctypes
import functools

# Parameters of mallopt, from glibc's malloc.h.
M_TRIM_THRESHOLD = -1
M_TOP_PAD = -2
M_MMAP_THRESHOLD = -3

MAX_POOLED_BYTES = 32 << 20  # of one tensor: the most that glibc takes from its pool
MAX_KEPT_BYTES = 1 << 30  # free memory that a process keeps
GROWTH_BYTES = 64 << 20  # of the pool, each time that it is too small


@functools.cache
def keep_freed_memory() -> bool:
    """Let this process keep up to 1 GiB of freed memory for its next tensors.

    Returns:
        False if the C library has no such setting (anything but glibc). Nothing changes then.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = {
        M_MMAP_THRESHOLD: MAX_POOLED_BYTES,
        M_TRIM_THRESHOLD: MAX_KEPT_BYTES,
        M_TOP_PAD: GROWTH_BYTES,
    }
    accepted = [mallopt(parameter, value) == 1 for parameter, value in settings.items()]
    return all(accepted)
