"""Which settings a single stage runs with, when nobody wrote a whole recipe for it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from data_contracts import ConfigError, Store
from flows import recipe
from flows.preview import last_settings
from stages import Stage
from stages.config import StageConfig


def settings_for(
    store: Store,
    stage: Stage,
    name: str | None,
    from_recipe: str | None,
    changes: Iterable[str] = (),
) -> StageConfig:
    """From the recipe if there is one, else from the last run under `name`, else the defaults; then changes in their order.

    changes: "key=value" or "stage.key=value".
    """
    if from_recipe:
        values = recipe.load(from_recipe).configs[stage.name].model_dump(mode="json")
    else:
        values = last_settings(store, name, stage) if name else {}
    written: dict[tuple[str, ...], str] = {}
    for text in changes:
        of, path, value = recipe.parse_change(text, stage.name)
        if of != stage.name:
            raise ConfigError(
                f"--set {text}",
                f"is a setting of {of}",
                f"only {stage.name} runs here; use groundup run for several stages",
            )
        recipe.put(values, path, value)
        written[tuple(path)] = text
    return _parsed(stage, values, written)


def _parsed(
    stage: Stage, values: dict[str, Any], written: Mapping[tuple[str, ...], str]
) -> StageConfig:
    """Raises ConfigError: of `--set`, if it was there that every mistake was written."""
    config, mistakes = stage.config_class.check(values, stage.name)
    if config is not None:
        return config
    fix = f"see every key with: groundup stage {stage.name} --keys"
    at_fault = {_change_at(written, where) for where in mistakes}
    if None in at_fault:
        raise ConfigError(f"settings of {stage.name}", "; ".join(mistakes.values()), fix)
    changes = " ".join(f"{recipe.SET} {text}" for text in sorted(filter(None, at_fault)))
    raise ConfigError(changes, "; ".join(mistakes.values()), fix)


def _change_at(written: Mapping[tuple[str, ...], str], where: tuple[int | str, ...]) -> str | None:
    for path, text in written.items():
        if where[: len(path)] == path:
            return text
    return None


def filled_in(form: BaseModel, place: str) -> Iterator[str]:
    """The fields of a form that somebody filled in, as changes: "place.key=value". An empty field is None."""
    plain = form.model_dump(mode="json")
    for key in type(form).model_fields:
        value = getattr(form, key)
        if isinstance(value, BaseModel):
            yield from filled_in(value, f"{place}.{key}")
        elif value is not None:
            yield f"{place}.{key}={json.dumps(plain[key], ensure_ascii=False)}"


def absolute(reference: str) -> str:
    """A recipe's name as it is; the path of a recipe file from the root, so that a worker elsewhere in the tree finds it."""
    return reference if reference in recipe.NAMES else str(Path(reference).resolve())
