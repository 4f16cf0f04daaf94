"""Which settings a single stage runs with, when nobody wrote a whole recipe for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

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
    form: Mapping[str, Any] | None = None,
) -> StageConfig:
    """From the recipe if there is one, else from the last run under `name`, else the defaults; then form fields, then changes.

    form: field → value; None means untouched. changes: "key=value" or "stage.key=value".
    """
    if from_recipe:
        values = recipe.load(from_recipe).configs[stage.name].model_dump(mode="json")
    else:
        values = last_settings(store, name, stage) if name else {}
    values = recipe.merged(values, filled(form or {}))
    for text in changes:
        of, path, value = recipe.parse_change(text, stage.name)
        if of != stage.name:
            raise ConfigError(f"--set {text}", f"is a setting of {of}", f"only {stage.name} runs here; use groundup run for several stages")
        recipe.put(values, path, value)
    return stage.config_class.parse(values, stage.name)


def filled(form: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a form that somebody filled in, group by group."""
    values = {key: filled(value) if isinstance(value, Mapping) else value for key, value in form.items()}
    return {key: value for key, value in values.items() if value is not None and value != {}}


def absolute(reference: str) -> str:
    """A recipe's name as it is; the path of a recipe file from the root, so that a worker elsewhere in the tree finds it."""
    return reference if reference in recipe.NAMES else str(Path(reference).resolve())
