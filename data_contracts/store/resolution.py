"""What a reference means: a ref, an artifact type with an id, an id, or the beginning of an id."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from data_contracts.errors import ConfigError
from data_contracts.store.identity import ID_DIGITS
from data_contracts.store.refs import Ref, is_name

if TYPE_CHECKING:
    from data_contracts.store.local import Store

MIN_DIGITS = 6
_DIGITS = re.compile(rf"[0-9a-f]{{{MIN_DIGITS},{ID_DIGITS}}}")
_SHOWN = 5


def resolve(store: Store, reference: str) -> tuple[str, str]:
    """Return the (artifact_type, id) that `reference` means.

    Args:
        store: The store.
        reference: run/output, type/id, an id, or the beginning of one.

    Raises:
        ConfigError: Nothing or more than one thing fits; the message names what there is.
    """
    ref = pointing(store, reference)
    if ref:
        return ref.artifact_type, ref.id
    left, slash, right = reference.partition("/")
    artifact_type, digits = (left, right) if slash else (None, left)
    found = _beginning_with(store, digits, artifact_type) if _DIGITS.fullmatch(digits) else []
    if len(found) == 1:
        return found[0]
    if found:
        shown = ", ".join(key[1] for key in found[:_SHOWN])
        why = f"{len(found)} ids begin so"
        raise ConfigError(f"artifact {reference!r}", why, f"give more digits: {shown}")
    raise _unknown(store, reference)


def pointing(store: Store, reference: str) -> Ref | None:
    """Return the ref that `reference` names, or None if there is no such ref."""
    run, slash, output = reference.partition("/")
    is_ref = slash and is_name(run) and is_name(output)
    return store.refs.get(run, output) if is_ref else None


def _beginning_with(store: Store, digits: str, artifact_type: str | None) -> list[tuple[str, str]]:
    keys = store.ids()
    if artifact_type is not None:
        keys = [key for key in keys if key[0] == artifact_type]
    return [key for key in keys if key[1].startswith(digits)]


def _unknown(store: Store, reference: str) -> ConfigError:
    run, slash, output = reference.partition("/")
    runs = store.refs.runs()
    known = runs
    if run in runs:
        known = [f"{run}/{name}" for name in store.refs.outputs(run)]
    why = f"is neither a run nor an artifact of {store.location}"
    if run in runs and not slash:
        why = "is a run, and one artifact of it is wanted"
    elif run in runs and is_name(output):
        why = f"the run {run} has no {output}"
    fix = f"choose from: {', '.join(known)}" if known else "make one first: groundup run"
    return ConfigError(f"artifact {reference!r}", why, fix)
