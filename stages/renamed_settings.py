"""Settings that were renamed or grouped.

Their old keys stay readable, and the keys that enter an artifact's id never change. A class of
settings lists them in `RENAMED`, as old path → path now, both relative to the class:
{"batch_rows": "batch_size"}. The old path is what enters the id, so a renamed setting makes no
artifact stale.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any

OnOldName = Callable[[str, str], None]  # gets the old path and the path now


class RenamedSettingWarning(UserWarning):
    """A setting was given under its old name."""


class GivenTwiceError(ValueError):
    """A setting is given under both of its names.

    Attributes:
        old: Its old path.
        new: Its new path.
    """

    def __init__(self, old: str, new: str):
        super().__init__(given_twice(old, new))
        self.old, self.new = old, new


def given_twice(old: str, new: str) -> str:
    """Return the message about a setting that is given under both of its names."""
    return f"{old} is now called {new}, and both are given: keep {new}"


def next_minor_version() -> str:
    """Return the version of groundup that reads no names that are old today, such as "0.2"."""
    major, minor, *_ = version("groundup").split(".")
    return f"{major}.{int(minor) + 1}"


def warn(old: str, new: str) -> None:
    """Warn that a setting was given under its old path."""
    until = f"the old name is read until groundup {next_minor_version()}"
    text = f"setting {old} is now called {new}; {until}"
    warnings.warn(text, RenamedSettingWarning, 3)


def stay_silent(old: str, new: str) -> None:
    """Do nothing: nobody wrote these settings just now, such as those of an older artifact."""


def with_new_names(renamed: Mapping[str, str], values: Any, on_old_name: OnOldName = warn) -> Any:
    """Return plain settings in which old keys are moved to where they belong now.

    Args:
        renamed: Old path → path now.
        values: What was given; anything but a mapping is returned as it is.
        on_old_name: Called for each old path that was given.

    Raises:
        GivenTwiceError: A setting is given under both of its names.
    """
    if not isinstance(values, Mapping):
        return values
    moved = dict(values)
    for old, new in renamed.items():
        if not _has(moved, old):
            continue
        if _has(moved, new):
            raise GivenTwiceError(old, new)
        _put(moved, new, _take(moved, old))
        on_old_name(old, new)
    return moved


def with_frozen_keys(renamed: Mapping[str, str], values: dict[str, Any]) -> dict[str, Any]:
    """Move values from new keys to the old ones, which enter an artifact's id.

    Args:
        renamed: Old path → new path.
        values: Plain values of settings.
    """
    moved = dict(values)
    for old, new in renamed.items():
        if _has(moved, new):
            _put(moved, old, _take(moved, new))
    return moved


def name_now(renamed: Mapping[str, str], path: str) -> str:
    """Return the new path of a setting.

    Args:
        renamed: Old path → new path.
        path: A path that may begin with an old one.
    """
    for old, new in renamed.items():
        if path == old or path.startswith(f"{old}."):
            return new + path.removeprefix(old)
    return path


def _has(values: Mapping[str, Any], path: str) -> bool:
    key, _, rest = path.partition(".")
    if key not in values:
        return False
    inner = values[key]
    return not rest or (isinstance(inner, Mapping) and _has(inner, rest))


def _take(values: dict[str, Any], path: str) -> Any:
    """Remove and return a value, and remove the groups that are empty without it."""
    key, _, rest = path.partition(".")
    if not rest:
        return values.pop(key)
    inner = values[key] = dict(values[key])
    value = _take(inner, rest)
    if not inner:
        del values[key]
    return value


def _put(values: dict[str, Any], path: str, value: Any) -> None:
    key, _, rest = path.partition(".")
    if not rest:
        values[key] = value
        return
    inner = values.get(key)
    group = values[key] = dict(inner) if isinstance(inner, Mapping) else {}
    _put(group, rest, value)
