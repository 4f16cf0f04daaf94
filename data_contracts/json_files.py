"""JSON that others may have written: parsed within bounds, and the same value for every reader.

A short text can hold many values: three bytes of `{},` become seventy in memory. So the values are
counted before anything is parsed, and no document takes more than 500 MB.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

from data_contracts.regular_files import open_regular

MAX_BYTES = 100 << 20  # a tokenizer.json of 256,000 tokens has 33 MB
MAX_VALUES = 2_600_000  # a tokenizer.json of 500,000 tokens and their merges has 2,500,000
MAX_NESTED = 64  # levels of lists and objects in a JSON file that groundup writes
_STARTS_OF_VALUES = "{[,:"


def read_json(path: Path, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """Read the JSON object in a file.

    Args:
        path: The file.
        max_bytes: How long it may be.

    Raises:
        ValueError: It is not a plain file, it is longer than `max_bytes`, it holds too many values,
            or it is not a JSON object. An object with a repeated key, NaN and values nested too
            deeply are refused as well.
        OSError: It cannot be read.
    """
    if not path.is_file():
        raise ValueError(f"{path.name} is missing, or not a plain file")
    with open_regular(path) as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise ValueError(f"{path.name} is longer than {max_bytes:,} bytes")
    try:
        found = parse_bounded(data)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from None
    except RecursionError:
        raise ValueError(f"{path.name} is nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} holds no JSON object")
    return found


def parse_bounded(text: str | bytes, max_values: int = MAX_VALUES) -> Any:
    """Parse JSON in which no key occurs twice and every number is finite.

    Raises:
        ValueError: It is not such JSON, or it may hold more than `max_values` values.
        RecursionError: It is nested too deeply.
    """
    check_values(text, max_values)
    return json.loads(text, object_pairs_hook=no_duplicates, parse_constant=_refuse_constant)


def plain_json(text: str | bytes, max_values: int = MAX_VALUES) -> Any:
    """Parse JSON that every reader takes for the same value.

    Raises:
        ValueError: It is not JSON, or it has a repeated key, NaN, half of a surrogate pair, more
            than `MAX_NESTED` levels, or more than `max_values` values.
    """
    check_values(text, max_values)
    try:
        value = json.loads(text, object_pairs_hook=no_duplicates)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if _is_deeper(value, MAX_NESTED):
        raise ValueError("nested too deeply")
    return value


def check_values(text: str | bytes, max_values: int) -> None:
    """Refuse JSON that may hold too many values, before it is parsed.

    Every value but the first follows one of the characters `{[,:`. Those inside strings count as
    well, which makes the count an upper bound that takes no parser.

    Args:
        text: The JSON.
        max_values: How many values it may hold.

    Raises:
        ValueError: There are more than `max_values` of these characters.
    """
    if isinstance(text, str):
        count = sum(text.count(character) for character in _STARTS_OF_VALUES)
    else:
        count = sum(text.count(character.encode()) for character in _STARTS_OF_VALUES)
    if count > max_values:
        raise ValueError(f"holds up to {count:,} JSON values, and at most {max_values:,} are read")


def no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a repeated key: JSON readers silently keep one of the values, and not all the same.

    For `json.loads(object_pairs_hook=no_duplicates)`.
    """
    made = dict(pairs)
    if len(made) != len(pairs):
        keys = ", ".join(key for key, _ in pairs)
        raise ValueError(f"a key occurs twice among {keys[:200]}")
    return made


def _is_deeper(value: Any, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    inside = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_deeper(part, levels - 1) for part in inside)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
