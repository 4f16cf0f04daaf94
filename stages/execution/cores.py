"""How many cores this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path


def cores() -> int:
    """Return the number of cores that this process may use.

    These are the cores of its affinity, or fewer if its control group has a CPU quota (containers,
    systemd).
    """
    allowed = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        allowed = len(os.sched_getaffinity(0))
    return max(1, math.ceil(min(allowed, cpu_quota())))


def cpu_quota(
    memberships: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> float:
    """Return the smallest CPU quota of this process's control group (v2) and its ancestors.

    Args:
        memberships: The file that lists the control groups of the process.
        root: The folder of the control groups.

    Returns:
        The quota in cores; infinity if there is none.
    """
    limits = [math.inf]
    for group in _control_groups(memberships):
        folder = root / group.strip("/")
        for ancestor in (folder, *folder.parents):
            file = ancestor / "cpu.max"
            if file.is_relative_to(root) and file.is_file():
                quota, period = file.read_text().split()
                limits.append(math.inf if quota == "max" else int(quota) / int(period))
    return min(limits)


def _control_groups(memberships: Path) -> list[str]:
    """Return the version 2 control groups that a file like /proc/self/cgroup lists."""
    if not memberships.is_file():
        return []
    prefix = "0::"
    lines = memberships.read_text().splitlines()
    return [line.removeprefix(prefix) for line in lines if line.startswith(f"{prefix}/")]
