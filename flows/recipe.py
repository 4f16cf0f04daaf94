"""A recipe is a YAML file that says only in what a run differs from the stages' defaults.

    about: one line for people
    extends: tiny            # another recipe, optional
    seed: 1                  # for every stage that has a seed
    prompts: [...]           # what the finished model is asked for show
    seconds: {crawl: 38}     # what stages took on two cores of a reference machine, for the forecast
    stages:
      dedup: {threshold: 0.7}

Booleans are true and false alone. Every mistake in a recipe is told at once, with its line and the nearest valid key.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import stages
from data_contracts import ConfigError
from data_contracts.foreign_text import brief
from flows import recipe_file
from flows.recipe_file import Where
from stages import renamed_settings
from stages.config import MAX_MISTAKES, StageConfig

FOLDER = Path(__file__).parent / "recipes"
NAMES = tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))
ASKING = ("evaluate", "export_gguf")  # stages that ask the model the recipe's prompts
SET = "--set"  # where a setting was written that no recipe has
_MOST_EXTENDED = 20  # files, one on top of the other


@dataclass(frozen=True)
class Recipe:
    """Checked settings for every stage. `name` is what to type to get it again."""

    name: str
    about: str
    prompts: tuple[str, ...]
    configs: dict[str, StageConfig]
    seconds: dict[str, float]


def load(reference: str, changes: Iterable[str] = ()) -> Recipe:
    """The recipe `reference` (a name of `flows/recipes`, or the path of a YAML file) with `changes` like "dedup.threshold=0.7".

    Raises ConfigError that lists every mistake of the file and of the changes.
    """
    values, lines = _read(reference, seen=())
    mistakes = [
        _unknown(("stages", key), stages.NAMES, lines)
        for key in values["stages"]
        if key not in stages.NAMES
    ]
    settings: dict[str, dict[str, Any]] = {
        name: dict(values["stages"].get(name, {})) for name in stages.NAMES
    }
    for change in changes:
        stage, path, value = parse_change(change)
        replaced = put(settings[stage], path, value)
        _replace_lines(lines, {("stages", stage, *replaced): SET})
    configs = {}
    for name in stages.NAMES:
        config_class = stages.stage(name).config_class
        shared = {key for key in _shared(name) if key in values and key not in settings[name]}
        settings[name] |= {key: values[key] for key in shared}
        config, told = config_class.check(settings[name], name)
        if config is not None:
            configs[name] = config
        for where, text in told.items():
            if where and where[0] in shared:
                mistakes.append(_at(lines, where) + text.removeprefix(f"{name}."))
            else:
                mistakes.append(_at(lines, ("stages", name, *where)) + text)
    if mistakes:
        raise _mistaken(reference, list(dict.fromkeys(mistakes)))
    own_pages = any(
        where[:2] == ("stages", "crawl") and line == SET for where, line in lines.items()
    )
    seconds = (
        {} if own_pages else values["seconds"]
    )  # measured on the recipe's pages: of others nothing is known
    return Recipe(
        reference, str(values.get("about", "")), tuple(values.get("prompts", ())), configs, seconds
    )


_RESOLVED: ContextVar[tuple[str, list[str], Recipe] | None] = ContextVar("resolved", default=None)


@contextmanager
def resolved(reference: str, changes: Iterable[str], recipe: Recipe) -> Iterator[None]:
    """Inside, `resolve` gives this recipe for these arguments instead of reading its files again.

    The command line resolves a recipe for its preview. The flow that it starts in the same process
    must work with what it has shown, also if a file was changed since.
    """
    token = _RESOLVED.set((reference, list(changes), recipe))
    try:
        yield
    finally:
        _RESOLVED.reset(token)


def resolve(reference: str, changes: Iterable[str]) -> Recipe:
    """The recipe that a whole run follows. Raises ConfigError as `load` does."""
    changes = list(changes)
    known = _RESOLVED.get()
    if known and known[:2] == (reference, changes):
        return known[2]
    return load(reference, changes)


def _mistaken(reference: str, mistakes: list[str]) -> ConfigError:
    """Of the recipe, unless all mistakes are in what was set beside it."""
    fix = "correct these; groundup stage STAGE --keys shows every key"
    mark = f"{SET}: "
    if not all(mistake.startswith(mark) for mistake in mistakes):
        return ConfigError(f"recipe {reference}", "\n  " + "\n  ".join(_first(mistakes)), fix)
    told = _first(mistake.removeprefix(mark) for mistake in mistakes)
    return ConfigError(SET, told[0] if len(told) == 1 else "\n  " + "\n  ".join(told), fix)


def _replace_lines(lines: dict[Where, str], above: Mapping[Where, str]) -> None:
    """Note where values were written that replace others; nothing is left of where the others' parts were written."""
    for written in above:
        for where in [where for where in lines if where[: len(written)] == written]:
            del lines[where]
    lines.update(above)


def _shared(stage: str) -> set[str]:
    """The settings of a stage that a recipe may say once for all."""
    seed = {"seed"} & stages.stage(stage).config_class.model_fields.keys()
    return seed | {"prompts"} if stage in ASKING else seed


def parse_change(text: str, stage: str | None = None) -> tuple[str, list[str], Any]:
    """(stage, path of keys, value) of "stage.key.key=value"; with `stage` given, its name may be left out. Values are YAML."""
    keys, equals, value = text.partition("=")
    path = keys.strip().split(".")
    if stage and path[0] not in stages.NAMES:
        path = [stage, *path]
    if not equals or len(path) < 2 or not all(path):
        raise ConfigError(
            f"--set {text}",
            "is not of the form stage.key=value",
            "write e.g. --set dedup.threshold=0.7",
        )
    try:
        stage_row = stages.stage(path[0])
        return stage_row.name, _path_today(stage_row, path[1:]), recipe_file.values(value)
    except recipe_file.NotPlainError as error:
        fix = "quote it, e.g. --set 'crawl.sources=[{kind: files}]'"
        raise ConfigError(f"--set {text}", f"the value {error.what}", fix) from None


def _path_today(stage: stages.Stage, path: list[str]) -> list[str]:
    """The keys of a setting, where an old name was written."""
    old = ".".join(path)
    new = stage.config_class.name_today(old)
    if new == old:
        return path
    renamed_settings.warn(f"{stage.name}.{old}", f"{stage.name}.{new}")
    return new.split(".")


def latest(changes: Iterable[str]) -> list[str]:
    """Of several changes of one key the last, where it stands."""
    found: dict[str, str] = {}
    for text in changes:
        key = text.partition("=")[0].strip()
        found.pop(key, None)
        found[key] = text
    return list(found.values())


def put(settings: dict[str, Any], path: list[str], value: Any) -> list[str]:
    """Set a nested key, leaving its neighbours as they are.

    Returns the path of what was replaced: shorter than `path` where something stood that is no mapping.
    """
    replaced = path
    for depth, key in enumerate(path[:-1], 1):
        inner = settings.get(key)
        if key in settings and not isinstance(inner, Mapping) and replaced is path:
            replaced = path[:depth]
        settings[key] = dict(inner) if isinstance(inner, Mapping) else {}
        settings = settings[key]
    settings[path[-1]] = value
    return replaced


def _read(reference: str, seen: tuple[str, ...]) -> tuple[dict[str, Any], dict[Where, str]]:
    """The values of a recipe over those it extends, and where each key was written."""
    path = FOLDER / f"{reference}.yaml" if reference in NAMES else Path(reference)
    if not recipe_file.is_file(path):
        near = difflib.get_close_matches(reference, NAMES, n=1)
        fix = (
            f"did you mean {near[0]!r}?"
            if near
            else f"choose from {', '.join(NAMES)}, or give the path of a YAML file"
        )
        raise ConfigError(f"recipe {brief(reference)}", "there is no such recipe or file", fix)
    if reference in seen:
        chain = " → ".join((*seen, reference))
        raise ConfigError(f"recipe {reference}", f"extends itself: {chain}", "remove one `extends`")
    if len(seen) > _MOST_EXTENDED:
        raise ConfigError(
            f"recipe {reference}", f"is extended over {len(seen)} files", "let recipes extend fewer"
        )
    values, lines = _parse(path)
    if mistakes := [
        _unknown((key,), recipe_file.KEYS, lines) for key in values if key not in recipe_file.KEYS
    ]:
        raise ConfigError(
            f"recipe {reference}",
            "; ".join(_first(mistakes)),
            f"a recipe has the keys {', '.join(recipe_file.KEYS)}",
        )
    base = values.pop("extends", None)
    if base is not None and not isinstance(base, str):
        why = f"{_at(lines, ('extends',))}extends is {brief(base)}"
        raise ConfigError(f"recipe {reference}", why, "write the name or the path of one recipe")
    if base:
        beside = path.parent / str(base)
        inherited, elsewhere = _read(
            str(beside) if recipe_file.is_file(beside) else str(base), (*seen, reference)
        )
        values = merged(inherited, values)
        below = {where: f"{base} {line}" for where, line in elsewhere.items()}
        merged_keys = {where for where in lines if _mapping_at(inherited, where)}
        _replace_lines(
            below, {where: line for where, line in lines.items() if where not in merged_keys}
        )
        lines = below | lines
    return values, lines


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` over `below`; mappings are merged key by key, lists and scalars replaced."""
    both = dict(below)
    for key, value in above.items():
        inner = both.get(key)
        both[key] = (
            merged(inner, value)
            if isinstance(inner, Mapping) and isinstance(value, Mapping)
            else value
        )
    return both


def _mapping_at(values: Mapping[str, Any], where: Where) -> bool:
    """Whether a mapping stands there, which another one is merged into."""
    found: Any = values
    for key in where:
        found = found.get(key) if isinstance(found, Mapping) else None
    return isinstance(found, Mapping)


def _parse(path: Path) -> tuple[dict[str, Any], dict[Where, str]]:
    """The file as plain values of the shape that a recipe has, and the line of every key."""
    written = recipe_file.read(path)
    values, lines = written.values, written.lines
    values["stages"] = _mapping(values.get("stages"), ("stages",), lines, path)
    for name, settings in values["stages"].items():
        given = _mapping(settings, ("stages", name), lines, path)
        if name in stages.NAMES:
            config_class = stages.stage(name).config_class
            prefix = f"{name}."
            given = config_class.with_names_of_today(given, renamed_settings.warn, prefix)
        values["stages"][name] = given
    values["seconds"] = _seconds(values.get("seconds"), lines, path)
    prompts = values.get("prompts", [])
    if not isinstance(prompts, list) or not all(isinstance(prompt, str) for prompt in prompts):
        raise ConfigError(
            f"recipe {path}",
            f"{_at(lines, ('prompts',))}prompts is {brief(prompts)}",
            "write a list of texts",
        )
    return values, lines


def _mapping(value: Any, where: Where, lines: Mapping[Where, str], path: Path) -> dict[str, Any]:
    if value is not None and not isinstance(value, dict):
        written = f"{_at(lines, where)}{'.'.join(map(str, where))} is {brief(value)}"
        raise ConfigError(
            f"recipe {path}",
            written,
            "write its settings below it, e.g. stages: {dedup: {threshold: 0.7}}",
        )
    return value or {}


def _seconds(value: Any, lines: Mapping[Where, str], path: Path) -> dict[str, float]:
    """What stages take. Raises ConfigError unless it is a mapping of stages to numbers."""
    given = value or {}
    good = isinstance(given, dict) and all(
        key in stages.NAMES
        and isinstance(number, int | float)
        and not isinstance(number, bool)
        and 0 <= number < math.inf
        for key, number in given.items()
    )
    if not good:
        why = f"{_at(lines, ('seconds',))}seconds is {brief(value)}"
        raise ConfigError(
            f"recipe {path}", why, "write stages and seconds, e.g. seconds: {crawl: 38, clean: 13}"
        )
    return {key: float(number) for key, number in given.items()}


def _at(lines: Mapping[Where, str], where: Where) -> str:
    while where and where not in lines:
        where = where[:-1]
    return f"{lines[where]}: " if where else ""


def _unknown(where: Where, known: Iterable[str], lines: Mapping[Where, str]) -> str:
    known = list(known)
    near = difflib.get_close_matches(str(where[-1])[:40], known, n=1, cutoff=0.4)
    instead = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known)}"
    return (
        f"{_at(lines, where)}{'.'.join(str(part)[:80] for part in where)} is not known; {instead}"
    )


def _first(mistakes: Iterable[str]) -> list[str]:
    """As many mistakes as a person reads, and how many more there are."""
    told = list(mistakes)
    more = len(told) - MAX_MISTAKES
    return [*told[:MAX_MISTAKES], f"and {more:,} more"] if more > 0 else told
