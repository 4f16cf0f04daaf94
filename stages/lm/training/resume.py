"""Safe points of a training run: written whole or not at all, checked before use, the last two kept. No pickle anywhere."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from data_contracts.store.artifact import sha256
from stages.lm.parallel import collectives, storage

KEPT = 2
STATE = "state.json"


def save(folder: Path, step: int, tensors: Mapping[str, Tensor], state: dict[str, Any]) -> None:
    """Write a safe point after `step` steps; all ranks take part. state: plain JSON, with no NaN.

    It appears at once: digests of all files are recorded and everything is on disk before it gets its name. Ranks share that work.
    """
    partial, whole = folder / f"partial-{step:09d}", folder / f"step-{step:09d}"
    with collectives.main_process_first():
        if collectives.is_main_process():
            for leftover in [*folder.glob("partial-*"), whole]:
                shutil.rmtree(leftover, ignore_errors=True)
            partial.mkdir(parents=True)
    storage.save_tensors(partial, tensors)
    collectives.barrier()
    mine = sorted(partial.iterdir())[collectives.rank() :: collectives.world_size()]
    for path in mine:
        _fsync(path)
    digests = {
        name: digest
        for part in collectives.all_gather({path.name: sha256(path) for path in mine})
        for name, digest in part.items()
    }
    if collectives.is_main_process():
        (partial / STATE).write_text(
            json.dumps({"files": digests, "state": state}, allow_nan=False), "utf-8"
        )
        _fsync(partial / STATE)
        _fsync(partial)
        partial.rename(whole)
        _fsync(folder)
        for old in sorted(folder.glob("step-*"))[:-KEPT]:
            shutil.rmtree(old)
    collectives.barrier()


def newest(folder: Path, guard: Mapping[str, Any]) -> tuple[Path | None, dict[str, Any], list[str]]:
    """(place, state, notes): the newest safe point whose every byte is as it was written and that belongs to this run.

    guard: what must be equal in `state["guard"]`. notes tell which safe points were passed over, and why. Rank 0 looks, for all.
    """
    return collectives.broadcast(lambda: _newest(folder, guard))


def _newest(
    folder: Path, guard: Mapping[str, Any]
) -> tuple[Path | None, dict[str, Any], list[str]]:
    notes: list[str] = []
    for place in sorted(folder.glob("step-*"), reverse=True):
        state, problem = _checked(place)
        if not problem:
            other = [
                key
                for key in guard
                if state["guard"].get(key) != json.loads(json.dumps(guard[key]))
            ]
            problem = f"it belongs to a run with other {', '.join(other)}" if other else ""
        if not problem:
            return place, state, notes
        notes.append(f"safe point {place.name} cannot be used: {problem}; going back further")
    return None, {}, notes


def _checked(place: Path) -> tuple[dict[str, Any], str]:
    try:
        record = json.loads((place / STATE).read_text("utf-8"))
        for name, digest in record["files"].items():
            if sha256(place / name) != digest:
                return {}, f"{name} was changed or damaged"
        return record["state"], ""
    except (OSError, ValueError, KeyError, TypeError) as error:
        return {}, f"{type(error).__name__}: {error}"


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
