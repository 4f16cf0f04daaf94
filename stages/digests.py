"""Ids and seeds derived from content.

They do not depend on the order of work, the number of workers or the clock.
"""

from __future__ import annotations

import hashlib


def digest(*parts: str | bytes) -> str:
    """Return the first 32 hex digits of a sha256 over the parts.

    The length of each part is hashed, too, so that ("ab", "c") and ("a", "bc") differ.
    """
    hashed = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        hashed.update(len(data).to_bytes(8, "little"))
        hashed.update(data)
    return hashed.hexdigest()[:32]


def seed_for(seed: int, *purpose: str | int) -> int:
    """Return a 63-bit seed for one purpose of a run, e.g. seed_for(config.seed, "pack", shard)."""
    return int(digest(str(seed), *map(str, purpose))[:16], 16) >> 1
