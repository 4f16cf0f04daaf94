"""Reads a recipe's file: bounded, plain YAML, and no line of a file that is no recipe is repeated.

A recipe may be anybody's file, and a wrong path may lead to a file that is nobody else's business. So its size, depth and number of
values have bounds that no recipe comes near; there are no aliases (they hide differences and can explode) and no tags.
"""

from __future__ import annotations

import difflib
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from data_contracts import ConfigError
from data_contracts.foreign_text import brief
from data_contracts.regular_files import open_regular

MOST_BYTES = 1 << 20
MOST_VALUES = 50_000
DEEPEST = 30
KEYS = ("about", "extends", "seed", "prompts", "seconds", "stages")

_FAST_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml takes a tenth of the time
_BOOL = "tag:yaml.org,2002:bool"
_TEXT = "tag:yaml.org,2002:str"
_OPENS = (yaml.MappingStartEvent, yaml.SequenceStartEvent)
_CLOSES = (yaml.MappingEndEvent, yaml.SequenceEndEvent)

Where = tuple[int | str, ...]


class _Loader(_FAST_LOADER):  # type: ignore[misc, valid-type]
    """YAML with the booleans of version 1.2, true and false. Version 1.1 also takes on, off, yes and no for them.

    Then compute.compile=on would be no choice, and clean.language.keep=[no] no Norwegian.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012  PyYAML's own name and form: first letter → [(tag, pattern)]
        first: [known for known in found if known[0] != _BOOL or first in "tTfF"]
        for first, found in _FAST_LOADER.yaml_implicit_resolvers.items()
    }


class NotPlainError(ValueError):
    """YAML that is not taken. what: the reason. fix: what to do about it."""

    def __init__(self, what: str, fix: str = "correct the file"):
        super().__init__(what)
        self.what, self.fix = what, fix


@dataclass(frozen=True)
class Written:
    """What a file says, and the line of every key and item in it."""

    values: dict[str, Any]
    lines: dict[Where, str]


def is_file(path: Path) -> bool:
    """Whether there is a plain file. A name that the system does not take, or may not look up, leads to none."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def read(path: Path) -> Written:
    """The values of a recipe's file.

    Raises ConfigError if the file cannot be read, is too large, is not plain YAML, or is no recipe; it then says nothing of what is in it.
    """
    try:
        text = _text(path)
        found = values(text) or {}
        if not isinstance(found, dict):
            raise NotPlainError("is not a mapping", f"a recipe has the keys {', '.join(KEYS)}")
        if found and not any(_meant(key) for key in found):
            raise NotPlainError(
                "is no recipe: it has none of a recipe's keys", f"they are {', '.join(KEYS)}"
            )
        lines: dict[Where, str] = {}
        _note_lines(yaml.compose(text, _Loader), (), lines)
        return Written(found, lines)
    except OSError as error:
        why = f"cannot be read: {error.strerror}"
        raise ConfigError(f"recipe {path}", why, f"make it readable: chmod u+r {path}") from None
    except NotPlainError as error:
        raise ConfigError(f"recipe {path}", error.what, error.fix) from None


def values(text: str) -> Any:
    """What plain YAML says. Raises NotPlainError."""
    check(text)
    try:
        return yaml.load(text, _Loader)
    except (
        yaml.YAMLError,
        ValueError,
        OverflowError,
    ) as error:  # of a date or a number that there is not
        raise NotPlainError(f"is not YAML: {_reason(error)}") from None


def check(text: str) -> None:
    """Raises NotPlainError if `text` is not YAML, or YAML beyond the bounds."""
    depth = count = 0
    try:
        for event in yaml.parse(text, _Loader):
            line = _line(event.start_mark)
            if isinstance(event, yaml.AliasEvent):
                raise NotPlainError(
                    f"{line} uses YAML aliases", "write the values out, or use `extends`"
                )
            if getattr(event, "tag", None) is not None:
                raise NotPlainError(
                    f"is not YAML as recipes have it: {line} uses a tag",
                    "write the value without `!…`",
                )
            depth += isinstance(event, _OPENS) - isinstance(event, _CLOSES)
            count += isinstance(event, (yaml.ScalarEvent, *_OPENS))
            if depth > DEEPEST:
                raise NotPlainError(
                    f"{line} is nested more than {DEEPEST} deep",
                    "no setting is: correct the brackets",
                )
            if count > MOST_VALUES:
                why = f"has more than {MOST_VALUES:,} values"
                raise NotPlainError(why, "keep long lists in a file of their own and name that")
    except (yaml.YAMLError, ValueError) as error:
        if isinstance(error, NotPlainError):
            raise
        raise NotPlainError(f"is not YAML: {_reason(error)}") from None


def _text(path: Path) -> str:
    with open_regular(path) as file:
        data = file.read(MOST_BYTES + 1)  # sizes of files under /proc are not told before
    if len(data) > MOST_BYTES:
        raise NotPlainError(
            f"has more than {MOST_BYTES:,} bytes, so it is no recipe", "name a recipe"
        )
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise NotPlainError(
            f"is no text: byte {error.start + 1:,} is not UTF-8", "name a recipe"
        ) from None


def _meant(key: Any) -> bool:
    """Whether a key is one of a recipe's, or a slip of the pen for one."""
    return bool(difflib.get_close_matches(str(key)[:40], KEYS, n=1, cutoff=0.75))


def _reason(error: Exception) -> str:
    """Why, and in which line: without what stands there."""
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        problem = error.problem or error.context or ""
        if isinstance(error, yaml.constructor.ConstructorError | yaml.composer.ComposerError):
            problem = problem.partition(" '")[0]  # what follows is the file's own text
        return f"{_line(mark)}: {problem}" if mark else problem
    if isinstance(error, yaml.reader.ReaderError):
        return f"it holds the character U+{_code(error):04X}"
    return (
        "a character that is not text"
        if isinstance(error, UnicodeError)
        else str(error).partition(":")[0]
    )


def _line(mark: Any) -> str:
    return f"line {mark.line + 1}"


def _code(error: yaml.reader.ReaderError) -> int:
    return error.character if isinstance(error.character, int) else ord(error.character[:1])


def _note_lines(node: yaml.Node | None, where: Where, lines: dict[Where, str]) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            line = _line(key.start_mark)
            if key.tag != _TEXT:
                raise NotPlainError(
                    f"{line}: YAML does not take the key {brief(key.value)} for text",
                    "put it in quotes",
                )
            here = (*where, key.value)
            if here in lines:
                raise NotPlainError(
                    f"{line}: {brief(key.value)} stands twice (first in {lines[here]})", "keep one"
                )
            lines[here] = line
            _note_lines(value, here, lines)
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            lines[(*where, number)] = _line(value.start_mark)
            _note_lines(value, (*where, number), lines)
