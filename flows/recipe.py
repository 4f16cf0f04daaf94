"""A recipe is a YAML file that says only in what a run differs from the defaults of the stages.

    about: one line for people
    extends: tiny            # another recipe, optional
    seed: 1                  # for every stage that has a seed
    prompts: [...]           # what the finished model is asked as a demonstration
    seconds: {crawl: 38}     # how long stages took on two cores of a reference machine
    stages:
      dedup: {threshold: 0.7}

Only true and false are booleans. All mistakes in a recipe are reported at once, each with its line
and the most similar valid key.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import stages
from data_contracts import ConfigError
from flows import recipe_file
from flows.recipe_file import KeyPath, Written
from flows.recipe_layers import FOLDER as FOLDER
from flows.recipe_layers import NAMES as NAMES
from flows.recipe_layers import (
    first_mistakes,
    line_prefix,
    read_layers,
    replace_lines,
    unknown_key,
)
from stages import renamed_settings
from stages.config import StageConfig

STAGES_WITH_PROMPTS = ("evaluate", "export_gguf")  # they ask the model the recipe's prompts
SET = "--set"  # stands for the line of a setting that no recipe has


@dataclass(frozen=True)
class Recipe:
    """A recipe with checked settings for every stage.

    Attributes:
        name: What to type to get it again: its name, or the path of its file.
        about: What it builds, in one line.
        prompts: What the finished model is asked as a demonstration.
        configs: The settings of each stage, by its name.
        seconds: How long stages took on the reference machine; empty for other pages than the
            recipe's own.
    """

    name: str
    about: str
    prompts: tuple[str, ...]
    configs: dict[str, StageConfig]
    seconds: dict[str, float]

    def settings(self) -> dict[str, dict[str, Any]]:
        """Return all settings of each stage as plain JSON values."""
        return {stage: config.model_dump(mode="json") for stage, config in self.configs.items()}


def load(reference: str, changes: Iterable[str] = ()) -> Recipe:
    """Read a recipe and check the settings of all stages.

    Args:
        reference: A name of `flows/recipes`, or the path of a YAML file.
        changes: Settings that differ from the recipe, such as "dedup.threshold=0.7".

    Raises:
        ConfigError: It lists every mistake of the file and of the changes.
    """
    written = read_layers(reference)
    values, lines = written.values, written.lines
    mistakes = [
        unknown_key(("stages", key), stages.NAMES, lines)
        for key in values["stages"]
        if key not in stages.NAMES
    ]
    settings = {name: dict(values["stages"].get(name, {})) for name in stages.NAMES}
    for change in changes:
        stage, path, value = parse_change(change)
        replaced = set_nested(settings[stage], path, value)
        replace_lines(lines, {("stages", stage, *replaced): SET})
    configs = {}
    for name in stages.NAMES:
        config, more_mistakes = _check_stage(name, settings[name], written)
        mistakes += more_mistakes
        if config:
            configs[name] = config
    if mistakes:
        raise _mistaken(reference, list(dict.fromkeys(mistakes)))
    has_own_pages = any(
        path[:2] == ("stages", "crawl") and line == SET for path, line in lines.items()
    )
    return Recipe(
        name=reference,
        about=str(values.get("about", "")),
        prompts=tuple(values.get("prompts", ())),
        configs=configs,
        seconds={} if has_own_pages else values["seconds"],
    )


def _check_stage(
    stage: str, settings: Mapping[str, Any], written: Written
) -> tuple[StageConfig | None, list[str]]:
    """Return the settings of one stage, or None and what is wrong with them."""
    shared = {
        key: written.values[key]
        for key in _shared_keys(stage)
        if key in written.values and key not in settings
    }
    config, problems = stages.stage(stage).config_class.check({**settings, **shared}, stage)
    mistakes = []
    for path, message in problems.items():
        if path and path[0] in shared:
            where = line_prefix(written.lines, path)
            mistakes.append(where + message.removeprefix(f"{stage}."))
        else:
            where = _where(written.lines, ("stages", stage, *path))
            mistakes.append(where + message)
    return config, mistakes


def _where(lines: Mapping[KeyPath, str], path: KeyPath) -> str:
    """Return where a mistake was made: in `--set`, if that changed anything at the path."""
    changed = any(line == SET and key[: len(path)] == path for key, line in lines.items())
    return f"{SET}: " if changed else line_prefix(lines, path)


# Set by `already_resolved`, read by `resolve`: arguments, and what they were resolved to.
_RESOLVED: ContextVar[tuple[str, list[str], Recipe] | None] = ContextVar("resolved", default=None)


@contextmanager
def already_resolved(reference: str, changes: Iterable[str], recipe: Recipe) -> Iterator[None]:
    """Let `resolve` return this recipe for these arguments, instead of reading its files again.

    The command line resolves a recipe for its preview. The flow that it starts in the same process
    must use what the preview has shown, even if a file has changed since then.
    """
    token = _RESOLVED.set((reference, list(changes), recipe))
    try:
        yield
    finally:
        _RESOLVED.reset(token)


def resolve(reference: str, changes: Iterable[str]) -> Recipe:
    """Return the recipe that a whole run follows.

    Raises:
        ConfigError: As by `load`.
    """
    changes = list(changes)
    known = _RESOLVED.get()
    if known and known[:2] == (reference, changes):
        return known[2]
    return load(reference, changes)


def _mistaken(reference: str, mistakes: list[str]) -> ConfigError:
    """Return an error about the recipe; or about `--set`, if all mistakes were made there."""
    fix = "correct these; groundup stage STAGE --keys shows every key"
    prefix = f"{SET}: "
    if not all(mistake.startswith(prefix) for mistake in mistakes):
        return ConfigError(f"recipe {reference}", _listed(first_mistakes(mistakes)), fix)
    messages = first_mistakes([mistake.removeprefix(prefix) for mistake in mistakes])
    return ConfigError(SET, _listed(messages), fix)


def _listed(messages: list[str]) -> str:
    """Return one message as it is, and several below each other."""
    if len(messages) == 1:
        return messages[0]
    return "\n  ".join(["has these mistakes:", *messages])


def _shared_keys(stage: str) -> list[str]:
    """Return the settings of a stage that a recipe may give once for all stages."""
    keys = []
    if "seed" in stages.stage(stage).config_class.model_fields:
        keys.append("seed")
    if stage in STAGES_WITH_PROMPTS:
        keys.append("prompts")
    return keys


def parse_change(text: str, stage: str | None = None) -> tuple[str, list[str], Any]:
    """Parse a change of a setting, such as "dedup.threshold=0.7". The value is YAML.

    Args:
        text: The change.
        stage: The stage of a change that names none, such as "threshold=0.7".

    Returns:
        The stage, the keys from the outermost to the innermost, and the value.

    Raises:
        ConfigError: The change has another form, or its value is not plain YAML.
    """
    dotted, equals, value = text.partition("=")
    keys = dotted.strip().split(".")
    if stage and keys[0] not in stages.NAMES:
        keys = [stage, *keys]
    if not equals or len(keys) < 2 or not all(keys):
        raise ConfigError(
            f"--set {text}",
            "is not of the form stage.key=value",
            "write e.g. --set dedup.threshold=0.7",
        )
    try:
        changed = stages.stage(keys[0])
        return changed.name, _present_keys(changed, keys[1:]), recipe_file.parse(value)
    except recipe_file.NotPlainError as error:
        fix = "quote it, e.g. --set 'crawl.sources=[{kind: files}]'"
        raise ConfigError(f"--set {text}", f"the value {error.why}", fix) from None


def _present_keys(stage: stages.Stage, keys: list[str]) -> list[str]:
    """Return the keys of a setting, where an old name was written."""
    old = ".".join(keys)
    new = stage.config_class.name_today(old)
    if new == old:
        return keys
    renamed_settings.warn(f"{stage.name}.{old}", f"{stage.name}.{new}")
    return new.split(".")


def latest_changes(changes: Iterable[str]) -> list[str]:
    """Keep the last change of each key, in its position."""
    latest: dict[str, str] = {}
    for text in changes:
        key = text.partition("=")[0].strip()
        latest.pop(key, None)
        latest[key] = text
    return list(latest.values())


def set_nested(settings: dict[str, Any], path: list[str], value: Any) -> KeyPath:
    """Set a nested key in place, and leave its neighbours as they are.

    Returns:
        The path of what was replaced. It is shorter than `path` if something that is no mapping
        stood in the way.
    """
    replaced: KeyPath = tuple(path)
    for depth, key in enumerate(path[:-1], 1):
        inner = settings.get(key)
        stands_in_the_way = key in settings and not isinstance(inner, Mapping)
        if stands_in_the_way and len(replaced) == len(path):
            replaced = tuple(path[:depth])
        settings[key] = dict(inner) if isinstance(inner, Mapping) else {}
        settings = settings[key]
    settings[path[-1]] = value
    return replaced
