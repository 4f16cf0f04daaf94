"""Reads the file of a recipe: plain YAML within bounds.

Anybody may have written a recipe, and a wrong path may lead to a file that is nobody else's
business. So size, depth and number of values have bounds that no recipe comes near. There are no
aliases, which hide differences and can grow without limit, and no tags. A message never repeats
the content of a file that is no recipe.
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

MAX_BYTES = 1 << 20
MAX_VALUES = 50_000
MAX_DEPTH = 30
KEYS = ("about", "extends", "seed", "prompts", "seconds", "stages")

_MAX_KEY_LENGTH = 40  # finding similar keys takes the square of it
_FAST_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml takes a tenth of the time
_BOOL = "tag:yaml.org,2002:bool"
_TEXT = "tag:yaml.org,2002:str"
_OPENINGS = (yaml.MappingStartEvent, yaml.SequenceStartEvent)
_CLOSINGS = (yaml.MappingEndEvent, yaml.SequenceEndEvent)

KeyPath = tuple[int | str, ...]  # keys, and numbers of list items, from the top of the file


class _Loader(_FAST_LOADER):  # type: ignore[misc, valid-type]
    """YAML with the booleans of version 1.2: true and false.

    Version 1.1 also reads on, off, yes and no as booleans. Then `compile: on` would be no choice,
    and in `keep: [no]` nobody would recognise the language code of Norwegian.
    """


def _without_other_booleans(resolvers: dict[str, Any]) -> dict[str, Any]:
    """Return the table by which PyYAML recognises values: first letter → [(tag, pattern)]."""
    kept: dict[str, Any] = {}
    for letter, known in resolvers.items():
        is_true_or_false = letter in "tTfF"
        kept[letter] = [pair for pair in known if pair[0] != _BOOL or is_true_or_false]
    return kept


_Loader.yaml_implicit_resolvers = _without_other_booleans(_FAST_LOADER.yaml_implicit_resolvers)


class NotPlainError(ValueError):
    """YAML that a recipe may not have.

    Attributes:
        why: What is wrong with it.
        fix: What to do about it.
    """

    def __init__(self, why: str, fix: str = "correct the file"):
        super().__init__(why)
        self.why, self.fix = why, fix


@dataclass(frozen=True)
class Written:
    """The content of a recipe's file.

    Attributes:
        values: Its values.
        lines: Where each key and each list item is written, such as "line 4".
    """

    values: dict[str, Any]
    lines: dict[KeyPath, str]


def is_file(path: Path) -> bool:
    """Return whether there is a regular file at `path`.

    There is none if the system does not accept the name, or does not allow to look it up.
    """
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def read(path: Path) -> Written:
    """Read the file of a recipe.

    Raises:
        ConfigError: The file cannot be read, is too large, is not plain YAML, or is no recipe. The
            message then repeats nothing of its content.
    """
    try:
        text = _read_text(path)
        values = parse(text) or {}
        if not isinstance(values, dict):
            raise NotPlainError("is not a mapping", f"a recipe has the keys {', '.join(KEYS)}")
        if values and not any(_resembles_a_key(key) for key in values):
            raise NotPlainError(
                "is no recipe: it has none of a recipe's keys", f"they are {', '.join(KEYS)}"
            )
        lines: dict[KeyPath, str] = {}
        _note_lines(yaml.compose(text, _Loader), (), lines)
        return Written(values, lines)
    except OSError as error:
        why = f"cannot be read: {error.strerror}"
        raise ConfigError(f"recipe {path}", why, f"make it readable: chmod u+r {path}") from None
    except NotPlainError as error:
        raise ConfigError(f"recipe {path}", error.why, error.fix) from None


def parse(text: str) -> Any:
    """Parse plain YAML.

    Raises:
        NotPlainError: It is not YAML, or has more than a recipe may have.
    """
    check(text)
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # e.g. of an impossible date
        raise NotPlainError(f"is not YAML: {_reason(error)}") from None


def check(text: str) -> None:
    """Check that `text` is YAML within the bounds, without building its values.

    Raises:
        NotPlainError: It is not.
    """
    depth = count = 0
    try:
        for event in yaml.parse(text, _Loader):
            depth += isinstance(event, _OPENINGS) - isinstance(event, _CLOSINGS)
            count += isinstance(event, (yaml.ScalarEvent, *_OPENINGS))
            _check_event(event, depth, count)
    except NotPlainError:
        raise
    except (yaml.YAMLError, ValueError) as error:
        raise NotPlainError(f"is not YAML: {_reason(error)}") from None


def _check_event(event: yaml.Event, depth: int, count: int) -> None:
    line = _line(event.start_mark)
    if isinstance(event, yaml.AliasEvent):
        raise NotPlainError(f"{line} uses YAML aliases", "write the values out, or use `extends`")
    if getattr(event, "tag", None) is not None:
        raise NotPlainError(
            f"is not YAML as recipes have it: {line} uses a tag", "write the value without `!…`"
        )
    if depth > MAX_DEPTH:
        raise NotPlainError(
            f"{line} is nested more than {MAX_DEPTH} deep", "no setting is: correct the brackets"
        )
    if count > MAX_VALUES:
        raise NotPlainError(
            f"has more than {MAX_VALUES:,} values",
            "keep long lists in a file of their own and name that",
        )


def _read_text(path: Path) -> str:
    with open_regular(path) as file:
        data = file.read(MAX_BYTES + 1)  # files under /proc do not state their size
    if len(data) > MAX_BYTES:
        raise NotPlainError(
            f"has more than {MAX_BYTES:,} bytes, so it is no recipe", "name a recipe"
        )
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise NotPlainError(
            f"is no text: byte {error.start + 1:,} is not UTF-8", "name a recipe"
        ) from None


def _resembles_a_key(key: Any) -> bool:
    """Return whether a key is one of a recipe's, or a misspelling of one."""
    return bool(difflib.get_close_matches(str(key)[:_MAX_KEY_LENGTH], KEYS, n=1, cutoff=0.75))


def _reason(error: Exception) -> str:
    """Return why the text is not YAML, and in which line, without the text itself."""
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        problem = error.problem or error.context or ""
        if isinstance(error, yaml.constructor.ConstructorError | yaml.composer.ComposerError):
            problem = problem.partition(" '")[0]  # what follows is the file's own text
        return f"{_line(mark)}: {problem}" if mark else problem
    if isinstance(error, yaml.reader.ReaderError):
        return f"it holds the character U+{_code_point(error):04X}"
    if isinstance(error, UnicodeError):
        return "it holds a character that is not text"
    return str(error).partition(":")[0]


def _code_point(error: yaml.reader.ReaderError) -> int:
    if isinstance(error.character, int):
        return error.character
    return ord(error.character[:1])


def _line(mark: Any) -> str:
    return f"line {mark.line + 1}"


def _note_lines(node: yaml.Node | None, path: KeyPath, lines: dict[KeyPath, str]) -> None:
    """Add the line of every key and list item below `node` to `lines`."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            line = _line(key.start_mark)
            if key.tag != _TEXT:
                raise NotPlainError(
                    f"{line}: YAML does not read the key {brief(key.value)} as text",
                    "put it in quotes",
                )
            key_path = (*path, key.value)
            if key_path in lines:
                raise NotPlainError(
                    f"{line}: {brief(key.value)} is given twice (first in {lines[key_path]})",
                    "keep one",
                )
            lines[key_path] = line
            _note_lines(value, key_path, lines)
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            lines[(*path, number)] = _line(value.start_mark)
            _note_lines(value, (*path, number), lines)
