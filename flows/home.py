"""Where groundup keeps things for the folder that a person works in: the store, and the state of Prefect."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from data_contracts import Store


@dataclass(frozen=True)
class Home:
    """`.groundup` in the current folder, or GROUNDUP_HOME."""

    path: Path

    @property
    def store(self) -> str:
        """A folder (absolute, so that every process means the same) or a URL: GROUNDUP_STORE, or `store` in here."""
        given = os.environ.get("GROUNDUP_STORE") or str(self.path / "store")
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
    os.chdir(os.environ.get("GROUNDUP_FOLDER", "."))


def open_store() -> Store:
    """The store of this folder."""
    from data_contracts import open_store as open_store_at  # Arrow and all contracts: not for a command's help

    return open_store_at(home().store)
