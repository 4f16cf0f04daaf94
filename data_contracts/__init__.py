"""What crosses between stages: contracts, artifacts under them, and the store that keeps them."""

from data_contracts.artifact import Artifact, Manifest
from data_contracts.contract import Contract, Contracts, current
from data_contracts.draft import Draft
from data_contracts.errors import ArtifactError, ConfigError, ContractError, GroundupError, InputError, Interrupted
from data_contracts.identity import Identity
from data_contracts.remote import open_store
from data_contracts.store import Store

__all__ = [
    "Artifact", "ArtifactError", "ConfigError", "Contract", "ContractError", "Contracts", "Draft", "GroundupError", "Identity",
    "InputError", "Interrupted", "Manifest", "Store", "current", "open_store",
]  # fmt: skip
