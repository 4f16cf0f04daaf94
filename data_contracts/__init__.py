"""What crosses between stages: contracts, artifacts that keep them, and the store that holds them.

A name is imported when it is first used: a command that shows its help or completes a word does not
need Arrow.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from data_contracts.contract import Contract, Contracts, current
    from data_contracts.errors import (
        ArtifactError,
        ConfigError,
        ContractError,
        GroundupError,
        InputError,
        Interrupted,
    )
    from data_contracts.store.address import ArtifactKey
    from data_contracts.store.artifact import Artifact, Manifest
    from data_contracts.store.draft import Draft
    from data_contracts.store.identity import Identity
    from data_contracts.store.local import Store
    from data_contracts.store.remote import open_artifact, open_store

_MODULES = {
    "store.artifact": ("Artifact", "Manifest"),
    "contract": ("Contract", "Contracts", "current"),
    "store.draft": ("Draft",),
    "errors": (
        "ArtifactError",
        "ConfigError",
        "ContractError",
        "GroundupError",
        "InputError",
        "Interrupted",
    ),
    "store.identity": ("Identity",),
    "store.remote": ("open_artifact", "open_store"),
    "store.address": ("ArtifactKey",),
    "store.local": ("Store",),
}

__all__ = [
    "Artifact",
    "ArtifactError",
    "ArtifactKey",
    "ConfigError",
    "Contract",
    "ContractError",
    "Contracts",
    "Draft",
    "GroundupError",
    "Identity",
    "InputError",
    "Interrupted",
    "Manifest",
    "Store",
    "current",
    "open_artifact",
    "open_store",
]


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            found = getattr(import_module(f"data_contracts.{module}"), name)
            globals()[name] = found
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
