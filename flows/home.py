"""Where groundup keeps things for the folder that a person works in: the store, and the state of Prefect."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from data_contracts import ConfigError, GroundupError
from data_contracts.credentials import ADVICE, holds_credentials, masked

if TYPE_CHECKING:
    from data_contracts import Store


@dataclass(frozen=True)
class Home:
    """`.groundup` in the current folder, or GROUNDUP_HOME."""

    path: Path

    @property
    def store(self) -> str:
        """A folder (absolute, so that every process means the same) or a URL: GROUNDUP_STORE, or `store` in here.

        Raises ConfigError for a URL with credentials: it would be kept in records, logs and messages.
        """
        given = os.environ.get("GROUNDUP_STORE") or str(self.path / "store")
        if holds_credentials(given):
            raise ConfigError(
                f"GROUNDUP_STORE={masked(given)}", "is an address with credentials in it", ADVICE
            )
        return given if "://" in given else str(Path(given).expanduser().resolve())

    @property
    def prefect(self) -> Path:
        return self.path / "prefect"

    def pid_file(self, process: str) -> Path:
        return self.prefect / f"{process}.json"

    def log(self, process: str) -> Path:
        return self.prefect / f"{process}.log"


def home() -> Home:
    return Home(Path(os.environ.get("GROUNDUP_HOME") or ".groundup").expanduser().resolve())


def enter_folder() -> None:
    """Work where `groundup up` or `groundup run` was called: relative paths in settings start there, and Prefect starts runs elsewhere."""
    if "PREFECT__FLOW_RUN_ID" in os.environ:  # in a worker that may have been started by hand
        from flows.private_home import keep_private

        keep_private()
    os.chdir(os.environ.get("GROUNDUP_FOLDER", "."))


def open_store() -> Store:
    """The store of this folder.

    Raises:
        ConfigError: there is a file in its place.
    """
    from data_contracts import (
        open_store as open_store_at,
    )  # Arrow and all contracts: not for a command's help

    place = home().store
    if "://" not in place and Path(place).exists() and not Path(place).is_dir():
        fix = "move it away, or give another place: GROUNDUP_STORE=FOLDER groundup …"
        raise ConfigError(f"the store {place}", "is a file, not a folder", fix)
    return open_store_at(place)


@contextmanager
def writing(at: Home) -> Iterator[None]:
    """What goes wrong with a file in the home is said with the home's name.

    Raises:
        GroundupError: the home cannot be written.
    """
    try:
        yield
    except OSError as error:
        fix = "repair that, or give another: GROUNDUP_HOME=FOLDER groundup …"
        why = f"cannot be written: {error.strerror}"
        raise GroundupError(f"the folder {at.path}", why, fix) from error
