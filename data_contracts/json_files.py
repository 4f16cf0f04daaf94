"""JSON files that others may have written: read within bounds, and one value for every reader."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

from data_contracts.files import no_duplicates
from data_contracts.regular_files import open_regular

MOST_BYTES = 256 << 20  # a tokenizer.json of 256,000 tokens takes 33 MB


def read_json(path: Path, most: int = MOST_BYTES) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        ValueError: It is no plain file, longer than `most` bytes, or no JSON object: a key twice,
            NaN and values nested too deeply are none either.
        OSError: It cannot be read.
    """
    if not path.is_file():
        raise ValueError(f"{path.name} is missing, or not a plain file")
    with open_regular(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"{path.name} is longer than {most:,} bytes")
    try:
        found = json.loads(data, object_pairs_hook=no_duplicates, parse_constant=_no_number)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from None
    except RecursionError:
        raise ValueError(f"{path.name} is nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} holds no JSON object")
    return found


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
