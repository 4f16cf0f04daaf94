"""A recipe with the recipes that it extends: their values as one, and where each is written."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import stages
from data_contracts import ConfigError
from data_contracts.foreign_text import brief
from flows import recipe_file
from flows.recipe_file import KeyPath, Written
from stages import renamed_settings
from stages.config import MAX_MISTAKES

FOLDER = Path(__file__).parent / "recipes"
NAMES = tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))

_MAX_EXTENDED = 20  # files, one on top of the other
_MAX_KEY_LENGTH = 40  # characters that are compared to find a similar key
_MAX_SHOWN_KEY_LENGTH = 80


def read_layers(reference: str, extending: tuple[str, ...] = ()) -> Written:
    """Read a recipe, on top of the recipes that it extends.

    Args:
        reference: A name of `flows/recipes`, or the path of a YAML file.
        extending: The recipes that lead here by `extends`, the outermost first.

    Returns:
        All values. The lines of an extended recipe have its name before them.

    Raises:
        ConfigError: A recipe cannot be read, has unknown keys or values of the wrong kind, or the
            recipes extend each other in a circle.
    """
    path = _path_of(reference)
    if reference in extending:
        chain = " → ".join((*extending, reference))
        raise ConfigError(f"recipe {reference}", f"extends itself: {chain}", "remove one `extends`")
    if len(extending) > _MAX_EXTENDED:
        raise ConfigError(
            f"recipe {reference}",
            f"is extended over {len(extending)} files",
            "let recipes extend fewer",
        )
    written = _read_one(path)
    _require_known_keys(reference, written)
    values, lines = written.values, written.lines
    base = values.pop("extends", None)
    if base is None or base == "":
        return written
    if not isinstance(base, str):
        why = f"{line_prefix(lines, ('extends',))}extends is {brief(base)}"
        raise ConfigError(f"recipe {reference}", why, "write the name or the path of one recipe")
    beside = path.parent / base
    base_reference = str(beside) if recipe_file.is_file(beside) else base
    below = read_layers(base_reference, (*extending, reference))
    return _on_top_of(below, base, written)


def _path_of(reference: str) -> Path:
    path = FOLDER / f"{reference}.yaml" if reference in NAMES else Path(reference)
    if recipe_file.is_file(path):
        return path
    similar = difflib.get_close_matches(reference, NAMES, n=1)
    if similar:
        fix = f"did you mean {similar[0]!r}?"
    else:
        fix = f"choose from {', '.join(NAMES)}, or give the path of a YAML file"
    raise ConfigError(f"recipe {brief(reference)}", "there is no such recipe or file", fix)


def _require_known_keys(reference: str, written: Written) -> None:
    known = recipe_file.KEYS
    mistakes = [
        unknown_key((key,), known, written.lines) for key in written.values if key not in known
    ]
    if mistakes:
        raise ConfigError(
            f"recipe {reference}",
            "; ".join(first_mistakes(mistakes)),
            f"a recipe has the keys {', '.join(known)}",
        )


def _on_top_of(below: Written, below_name: str, above: Written) -> Written:
    """Return the values of `above` over those of `below`, and where each of them is written."""
    lines = {path: f"{below_name} {line}" for path, line in below.lines.items()}
    # Mappings are merged, everything else is replaced.
    replacing = {
        path: line for path, line in above.lines.items() if not _has_mapping_at(below.values, path)
    }
    replace_lines(lines, replacing)
    return Written(merged(below.values, above.values), lines | above.lines)


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return `above` over `below`: mappings are merged, lists and scalars are replaced."""
    both = dict(below)
    for key, value in above.items():
        inner = both.get(key)
        if isinstance(inner, Mapping) and isinstance(value, Mapping):
            both[key] = merged(inner, value)
        else:
            both[key] = value
    return both


def replace_lines(lines: dict[KeyPath, str], replacing: Mapping[KeyPath, str]) -> None:
    """Note in `lines` where values are written that replace others, and forget what they replace.

    Args:
        lines: Where each value is written; changed.
        replacing: The same of the new values. They also replace all values inside the old ones.
    """
    for new_path in replacing:
        inside = [path for path in lines if path[: len(new_path)] == new_path]
        for path in inside:
            del lines[path]
    lines.update(replacing)


def _has_mapping_at(values: Mapping[str, Any], path: KeyPath) -> bool:
    value: Any = values
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return isinstance(value, Mapping)


def _read_one(path: Path) -> Written:
    """Read one file, without what it extends. Its values have the types that a recipe has."""
    written = recipe_file.read(path)
    values, lines = written.values, written.lines
    values["stages"] = _mapping(values.get("stages"), ("stages",), lines, path)
    for name, settings in values["stages"].items():
        given = _mapping(settings, ("stages", name), lines, path)
        if name in stages.NAMES:
            config_class = stages.stage(name).config_class
            given = config_class.with_names_of_today(given, renamed_settings.warn, f"{name}.")
        values["stages"][name] = given
    values["seconds"] = _seconds(values.get("seconds"), lines, path)
    prompts = values.get("prompts", [])
    if not isinstance(prompts, list) or not all(isinstance(prompt, str) for prompt in prompts):
        raise ConfigError(
            f"recipe {path}",
            f"{line_prefix(lines, ('prompts',))}prompts is {brief(prompts)}",
            "write a list of texts",
        )
    return written


def _mapping(
    value: Any, key_path: KeyPath, lines: Mapping[KeyPath, str], path: Path
) -> dict[str, Any]:
    if value is not None and not isinstance(value, dict):
        keys = ".".join(map(str, key_path))
        raise ConfigError(
            f"recipe {path}",
            f"{line_prefix(lines, key_path)}{keys} is {brief(value)}",
            "write its settings below it, e.g. stages: {dedup: {threshold: 0.7}}",
        )
    return value or {}


def _seconds(value: Any, lines: Mapping[KeyPath, str], path: Path) -> dict[str, float]:
    """Return how long each stage takes.

    Raises ConfigError unless it is a mapping of stages to numbers.
    """
    seconds = value or {}
    if isinstance(seconds, dict) and all(_is_duration(*item) for item in seconds.items()):
        return {stage: float(number) for stage, number in seconds.items()}
    raise ConfigError(
        f"recipe {path}",
        f"{line_prefix(lines, ('seconds',))}seconds is {brief(value)}",
        "write stages and seconds, e.g. seconds: {crawl: 38, clean: 13}",
    )


def _is_duration(stage: Any, number: Any) -> bool:
    if isinstance(number, bool) or not isinstance(number, int | float):
        return False
    return stage in stages.NAMES and 0 <= number < math.inf


def line_prefix(lines: Mapping[KeyPath, str], path: KeyPath) -> str:
    """ "line 4: ", where the value is written or else what contains it; "" if that is nowhere."""
    while path and path not in lines:
        path = path[:-1]
    return f"{lines[path]}: " if path else ""


def unknown_key(path: KeyPath, known: Iterable[str], lines: Mapping[KeyPath, str]) -> str:
    """Return the message about an unknown key, with the most similar one or all of them."""
    known = list(known)
    key = str(path[-1])[:_MAX_KEY_LENGTH]
    similar = difflib.get_close_matches(key, known, n=1, cutoff=0.4)
    if similar:
        instead = f"did you mean {similar[0]!r}?"
    else:
        instead = f"there are: {', '.join(known)}"
    dotted = ".".join(str(part)[:_MAX_SHOWN_KEY_LENGTH] for part in path)
    return f"{line_prefix(lines, path)}{dotted} is not known; {instead}"


def first_mistakes(mistakes: list[str]) -> list[str]:
    """Return as many mistakes as a person reads, and how many more there are."""
    more = len(mistakes) - MAX_MISTAKES
    if more <= 0:
        return mistakes
    return [*mistakes[:MAX_MISTAKES], f"and {more:,} more"]
