"""Resume checkpoints of a training run.

They are written whole or not at all and checked before use; the last two are kept. They hold JSON
and safetensors, no pickle.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from data_contracts.files import sha256
from stages.lm.parallel import collectives, storage

KEPT = 2
STATE = "state.json"


def save(folder: Path, step: int, tensors: Mapping[str, Tensor], state: dict[str, Any]) -> None:
    """Write a resume checkpoint. All ranks must call it.

    It gets its final name only when everything is on disk and the digests of all files are
    recorded. Ranks share the work of computing digests.

    Args:
        folder: Folder of the run's resume checkpoints.
        step: Number of steps done.
        tensors: Tensors by name, the same names on every rank.
        state: Plain JSON values, without NaN.
    """
    partial = folder / f"partial-{step:09d}"
    whole = folder / f"step-{step:09d}"
    with collectives.main_process_first():
        if collectives.is_main_process():
            for leftover in [*folder.glob("partial-*"), whole]:
                shutil.rmtree(leftover, ignore_errors=True)
            partial.mkdir(parents=True)
    storage.save_tensors(partial, tensors)
    collectives.barrier()
    digests = _digests(partial)
    if collectives.is_main_process():
        record = json.dumps({"files": digests, "state": state}, allow_nan=False)
        (partial / STATE).write_text(record, "utf-8")
        _fsync(partial / STATE)
        _fsync(partial)
        partial.rename(whole)
        _fsync(folder)
        for old in sorted(folder.glob("step-*"))[:-KEPT]:
            shutil.rmtree(old)
    collectives.barrier()


def newest(folder: Path, guard: Mapping[str, Any]) -> tuple[Path | None, dict[str, Any], list[str]]:
    """Find the newest undamaged resume checkpoint of this run. Rank 0 looks, for all ranks.

    Args:
        folder: Folder of the run's resume checkpoints.
        guard: Values that must be equal in `state["guard"]`.

    Returns:
        Its path (None: there is none), its state, and a note for each one that cannot be used.
    """
    return collectives.broadcast(lambda: _newest(folder, guard))


def _newest(
    folder: Path, guard: Mapping[str, Any]
) -> tuple[Path | None, dict[str, Any], list[str]]:
    expected = json.loads(json.dumps(dict(guard)))
    notes: list[str] = []
    for path in sorted(folder.glob("step-*"), reverse=True):
        state, problem = _read_state(path)
        if not problem:
            problem = _guard_problem(state["guard"], expected)
        if not problem:
            return path, state, notes
        notes.append(f"resume checkpoint {path.name} cannot be used: {problem}; going back further")
    return None, {}, notes


def _read_state(path: Path) -> tuple[dict[str, Any], str]:
    """Return the state of a resume checkpoint, and the reason why it cannot be used, or ""."""
    try:
        record = json.loads((path / STATE).read_text("utf-8"))
        for name, digest in record["files"].items():
            if sha256(path / name) != digest:
                return {}, f"{name} was changed or damaged"
        return record["state"], ""
    except (OSError, ValueError, KeyError, TypeError) as error:
        return {}, f"{type(error).__name__}: {error}"


def _guard_problem(found: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    different = [key for key in expected if found.get(key) != expected[key]]
    return f"it belongs to a run with other {', '.join(different)}" if different else ""


def _digests(folder: Path) -> dict[str, str]:
    """Sync all files, and return their digests by name. Each rank handles some of the files."""
    paths = sorted(folder.iterdir())[collectives.rank() :: collectives.world_size()]
    for path in paths:
        _fsync(path)
    digests: dict[str, str] = {}
    for part in collectives.all_gather({path.name: sha256(path) for path in paths}):
        digests |= part
    return digests


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
