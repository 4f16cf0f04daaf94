"""The settings of a stage that is started alone."""

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

WrittenChanges = Mapping[tuple[str, ...], str]  # path of keys → the change as it was written


def settings_for(
    store: Store,
    stage: Stage,
    run: str | None,
    from_recipe: str | None,
    changes: Iterable[str] = (),
) -> StageConfig:
    """Resolve the settings of one stage.

    They come from the recipe if there is one, else from the last time that the run made the stage's
    output, else they are the defaults. The changes follow, in their order.

    Args:
        store: Where the settings of the run are kept.
        stage: The stage.
        run: The run whose settings count, if there is one.
        from_recipe: A name of `flows/recipes`, or the path of a YAML file.
        changes: Each "key=value" or "stage.key=value".

    Raises:
        ConfigError: A change is of another stage, or a setting is not valid.
    """
    values: dict[str, Any] = {}
    if from_recipe:
        values = recipe.load(from_recipe).configs[stage.name].model_dump(mode="json")
    elif run:
        values = last_settings(store, run, stage)
    written: dict[tuple[str, ...], str] = {}
    for text in changes:
        changed_stage, path, value = recipe.parse_change(text, stage.name)
        if changed_stage != stage.name:
            raise ConfigError(
                f"--set {text}",
                f"is a setting of {changed_stage}",
                f"only {stage.name} runs here; use groundup run for several stages",
            )
        recipe.set_nested(values, path, value)
        written[tuple(path)] = text
    return _parsed(stage, values, written)


def _parsed(stage: Stage, values: dict[str, Any], written: WrittenChanges) -> StageConfig:
    """Return the checked settings. Raises a ConfigError about `--set` if all mistakes are there."""
    config, mistakes = stage.config_class.check(values, stage.name)
    if config is not None:
        return config
    messages = "; ".join(mistakes.values())
    fix = f"see every key with: groundup stage {stage.name} --keys"
    at_fault = set()
    for path in mistakes:
        change = _change_at(written, path)
        if change is None:
            raise ConfigError(f"settings of {stage.name}", messages, fix)
        at_fault.add(f"{recipe.SET} {change}")
    raise ConfigError(" ".join(sorted(at_fault)), messages, fix)


def _change_at(written: WrittenChanges, path: tuple[int | str, ...]) -> str | None:
    """Return the change that set the value at `path`, if one did."""
    for changed_path, text in written.items():
        if path[: len(changed_path)] == changed_path:
            return text
    return None


def changes_in_form(form: BaseModel, prefix: str) -> Iterator[str]:
    """Return the fields of a form that a person filled in, as changes such as "prefix.key=value".

    Args:
        form: The form. An empty field is None.
        prefix: The stage; for a group of settings, its path.
    """
    plain = form.model_dump(mode="json")
    for key in type(form).model_fields:
        value = getattr(form, key)
        if isinstance(value, BaseModel):
            yield from changes_in_form(value, f"{prefix}.{key}")
        elif value is not None:
            yield f"{prefix}.{key}={json.dumps(plain[key], ensure_ascii=False)}"


def absolute_reference(recipe_reference: str) -> str:
    """Return a reference to a recipe that means the same in every folder.

    Returns:
        The name of a shipped recipe as it is, else the absolute path of the file.
    """
    if recipe_reference in recipe.NAMES:
        return recipe_reference
    return str(Path(recipe_reference).resolve())
