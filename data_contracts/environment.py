"""Folders and numbers that environment variables name; what cannot be one is one clear error."""

from __future__ import annotations

import os
from pathlib import Path

from data_contracts import ConfigError


def folder_named(variable: str, name: str) -> Path:
    """Return the absolute path of a folder whose name may begin with `~`, whether it exists or not.

    Args:
        variable: The environment variable that names it, for the error.
        name: Its name.

    Raises:
        ConfigError: There is no such home directory, or links lead in a circle.
    """
    try:
        return Path(name).expanduser().resolve()
    except (RuntimeError, OSError, ValueError) as error:
        raise ConfigError(
            f"{variable}={name}", f"names no folder: {error}", f"set {variable} to an absolute path"
        ) from None


def seconds_named(variable: str, default: float, most: float) -> float:
    """Return the seconds that an environment variable gives.

    Args:
        variable: The variable.
        default: What counts if it is not set, or empty.
        most: The greatest number allowed.

    Raises:
        ConfigError: It is not a number from 0 to `most`.
    """
    text = os.environ.get(variable) or str(default)
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= most:  # nor is "nan"
        raise ConfigError(
            f"{variable}={text}",
            "is not a number of seconds",
            f"set a number from 0 to {most:,.0f}, or unset it",
        )
    return seconds
