"""The names of our work pool and worker on a Prefect server."""

from __future__ import annotations

from typing import Final

POOL: Final = "groundup"
WORKER: Final = "groundup"
