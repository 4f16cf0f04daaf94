"""The folder in which groundup keeps its files: the artifact store and the state of Prefect."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from data_contracts import ConfigError, GroundupError
from data_contracts.credentials import ADVICE, holds_credentials, masked_address
from data_contracts.environment import folder_named

if TYPE_CHECKING:
    from data_contracts import Store


@dataclass(frozen=True)
class Home:
    """The home: `.groundup` in the current folder, or the folder that GROUNDUP_HOME names."""

    path: Path

    @property
    def store(self) -> str:
        """The store: what GROUNDUP_STORE names, or the folder `store` of the home.

        Returns:
            A URL, or an absolute path, which means the same folder to every process.

        Raises:
            ConfigError: The path can be none, or the URL holds credentials, which would end up in
                records, logs and messages.
        """
        location = os.environ.get("GROUNDUP_STORE") or str(self.path / "store")
        if holds_credentials(location):
            raise ConfigError(
                f"GROUNDUP_STORE={masked_address(location)}",
                "is an address with credentials in it",
                ADVICE,
            )
        if "://" in location:
            return location
        return str(folder_named("GROUNDUP_STORE", location))

    @property
    def prefect(self) -> Path:
        """The folder of Prefect's database, logs and secret."""
        return self.path / "prefect"

    def pid_file(self, process: str) -> Path:
        """Return the file that records which process is our `process` ("server" or "worker")."""
        return self.prefect / f"{process}.json"

    def log(self, process: str) -> Path:
        """Return the log file of our `process` ("server" or "worker")."""
        return self.prefect / f"{process}.log"


def current_home() -> Home:
    """Return the home that this process uses.

    Raises:
        ConfigError: GROUNDUP_HOME can be no folder.
    """
    return Home(folder_named("GROUNDUP_HOME", os.environ.get("GROUNDUP_HOME") or ".groundup"))


def open_store() -> Store:
    """Open the store of the home.

    Raises:
        ConfigError: The path of the store is a file.
    """
    # Imports Arrow and reads all contracts, which the help of a command does not need.
    from data_contracts import open_store as open_store_at

    location = current_home().store
    is_local = "://" not in location
    if is_local and Path(location).exists() and not Path(location).is_dir():
        raise ConfigError(
            f"the store {location}",
            "is a file, not a folder",
            "move it away, or name another folder: GROUNDUP_STORE=FOLDER groundup …",
        )
    return open_store_at(location)


@contextmanager
def writing(home: Home) -> Iterator[None]:
    """Turn an OSError of the block into an error that names the home.

    Raises:
        GroundupError: The home cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise GroundupError(
            f"the folder {home.path}",
            f"cannot be written: {error.strerror}",
            "repair that, or name another folder: GROUNDUP_HOME=FOLDER groundup …",
        ) from error
