"""Names that `tests/security` still uses for what the packages have renamed.

This file goes when those tests use the names of today.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from data_contracts import Store
from data_contracts.store import index, verification
from data_contracts.store.refs import Ref


def provide() -> None:
    """Let the old names mean what the new ones do."""
    held: Any = ModuleType("data_contracts.store.held")
    held.Held = index.StoreIndex
    sys.modules[held.__name__] = held
    old: Any = index.StoreIndex
    old.by = index.StoreIndex.read
    module: Any = verification
    module.Held = index.StoreIndex
    store: Any = Store
    store.follow = Store.remember_recipe
    store.judge = Store.check_seal
    store.point = _point
    ref: Any = Ref
    ref.run = property(lambda self: self.made_by)


_point_today = Store.point


def _point(*arguments: Any, **named: Any) -> bool:
    if "run" in named:
        named["made_by"] = named.pop("run")
    return _point_today(*arguments, **named)
