"""Released contracts never change: `FROZEN` holds the sha256 of each, and CI compares.

A change to a contract is a new file (`v1.1.yaml`, `v2.yaml`), frozen in turn.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from data_contracts.compatibility import changes
from data_contracts.contract import SHIPPED, Contract, Contracts
from data_contracts.errors import ContractError
from data_contracts.files import sha256
from data_contracts.upgrades import reaches

_FILE = "FROZEN"


def problems(contracts: Contracts = SHIPPED) -> list[str]:
    """Return everything that is wrong with the set of released contracts.

    This is: frozen files that changed or are missing, files that are not frozen yet, breaking
    changes inside a major version, and major versions without a migration.
    """
    frozen = _read(contracts)
    found = []
    present = _released(contracts)
    for name, digest in frozen.items():
        if name not in present:
            found.append(f"{name} is frozen and missing: restore it")
        elif sha256(present[name]) != digest:
            found.append(
                f"{name} is frozen and was changed: restore it and write a new version beside it"
            )
    unfrozen = [name for name in present if name not in frozen]
    found += [f"{name} is not frozen: run groundup contracts check --freeze" for name in unfrozen]
    for artifact_type in contracts.artifact_types:
        for old, new in pairwise(contracts.versions(artifact_type)):
            found += _step(contracts, old, new)
    return found


def require(artifact_type: str, contracts: Contracts = SHIPPED) -> None:
    """Refuse released contracts that were changed: ids would stay the same, and the data would not.

    Args:
        artifact_type: The artifact type.
        contracts: The released contracts.

    Raises:
        ContractError: A contract of the artifact type is not what was released.
    """
    for name, digest in _read(contracts).items():
        path = contracts.root / name
        if name.startswith(f"{artifact_type}/") and (not path.is_file() or sha256(path) != digest):
            raise ContractError(
                f"contract {name}",
                "was changed after its release",
                f"git checkout {path}, or write a new version beside it",
            )


def freeze(contracts: Contracts = SHIPPED) -> list[str]:
    """Add the digests of contracts that are not frozen yet. Never changes an entry.

    Returns:
        The names of the files that were added.
    """
    frozen = _read(contracts)
    added = []
    for name, path in _released(contracts).items():
        if name not in frozen:
            frozen[name] = sha256(path)
            added.append(name)
    lines = [f"{digest}  {name}\n" for name, digest in sorted(frozen.items())]
    (contracts.root / _FILE).write_text("".join(lines), "utf-8")
    return added


def _released(contracts: Contracts) -> dict[str, Path]:
    """Return the files of all contracts, by their paths below the folder of contracts."""
    files = sorted(contracts.root.glob("*/v*.yaml"))
    return {file.relative_to(contracts.root).as_posix(): file for file in files}


def _step(contracts: Contracts, old: Contract, new: Contract) -> list[str]:
    step = f"{old.artifact_type} {old.version} → {new.version}"
    if old.version.major == new.version.major:
        found = []
        for change in changes(old, new):
            if change.breaking:
                what = f"{change.where}: {change.what}"
                found.append(f"{step} breaks readers of {old.version.major}.x: {what}")
        return found
    if new.tables and not reaches(contracts, new.artifact_type, old.version, new.version):
        return [f"{step} has no migration: register one in data_contracts/migrations.py"]
    return []


def _read(contracts: Contracts) -> dict[str, str]:
    path = contracts.root / _FILE
    if not path.exists():
        return {}
    found = {}
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        digest, _, name = line.partition("  ")
        if len(digest) != 64 or not name:
            raise ContractError(
                f"{path} line {number}",
                "is not '<sha256>  <artifact_type>/v<version>.yaml'",
                f"restore the file: git checkout {path}",
            )
        found[name] = digest
    return found
