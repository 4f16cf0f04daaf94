"""Files from which Prefect takes settings: none of a home, none of a working folder.

Some settings run code: a logging configuration names functions, and a database names what a worker
starts. Prefect reads such files from its home and from the folder in which it is imported or used.
A clone or an update of a repository can put them there. So the files of Prefect's own package are
named in their place. The environment still counts: it is the user's own.
"""

from __future__ import annotations

import os
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from data_contracts import GroundupError
from flows.home import Home

LOGGING_NAMES = ("PREFECT_LOGGING_CONFIG_PATH", "PREFECT_LOGGING_SETTINGS_PATH")
# The classes of prefect.settings.sources that read a file of the current folder, and how they do.
READERS = {
    "FilteredDotEnvSettingsSource": "_read_env_files",
    "TomlConfigSettingsSourceBase": "_read_file",
}


FILES = (".env", "prefect.toml", "pyproject.toml", "profiles.toml", "logging.yml")


def unread(home: Home) -> list[str]:
    """Return a line about each file of settings in the home: it has no effect."""
    found = [home.prefect / name for name in FILES if os.path.lexists(home.prefect / name)]
    return [f"{path} is not read: settings of Prefect come from the environment" for path in found]


def package() -> Path:
    """Return the folder of the installed Prefect. Nothing of it is imported."""
    found = find_spec("prefect")
    if found is None or found.origin is None:
        raise GroundupError("Prefect", "is not installed", "install groundup again")
    return Path(found.origin).parent


def settings() -> dict[str, str]:
    """Return environment variables that name the files of Prefect's package.

    A logging configuration that the user names in the environment stays. Both of its names are set,
    because a file that gives the other one would come first.
    """
    named = [os.environ[name] for name in LOGGING_NAMES if os.environ.get(name)]
    logging = named[0] if named else str(package() / "logging" / "logging.yml")
    profiles = package() / "settings" / "profiles.toml"
    return {"PREFECT_PROFILES_PATH": str(profiles)} | dict.fromkeys(LOGGING_NAMES, logging)


def ignore_those_of_folders() -> None:
    """Keep Prefect from reading `.env`, `prefect.toml` and `pyproject.toml` of a current folder.

    It does so at its import, and again whenever a setting is changed for a while.
    """
    sources = import_module("prefect.settings.sources")
    for class_name, reader in READERS.items():
        source = getattr(sources, class_name)
        # Fails if a new version of Prefect calls it otherwise, rather than reading the file.
        getattr(source, reader)
        setattr(source, reader, _read_nothing)


def _read_nothing(*_: object) -> dict[str, str | None]:
    return {}
