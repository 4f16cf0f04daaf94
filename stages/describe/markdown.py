"""Tables, numbers and quotations in markdown, safe against what may stand in the data."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

LONGEST = 1500  # characters of a quotation


def number(value: Any) -> str:
    """Counts with separators, measurements with four figures, nothing as a dash."""
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else _cell(str(value))


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table, or a sentence if there are no rows."""
    lines = [f"| {' | '.join(map(number, row))} |" for row in rows]
    return "\n".join([f"| {' | '.join(head)} |", "|" + "---|" * len(head), *lines]) if lines else "None."


def quotation(text: str) -> str:
    """A fenced block that no text can end early."""
    text = text if len(text) <= LONGEST else text[:LONGEST] + " …"
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}text\n{text}\n{fence}"


def settings(config: dict[str, Any]) -> str:
    """The settings of a stage as JSON."""
    return f"```json\n{json.dumps(config, indent=1, ensure_ascii=False, sort_keys=True)}\n```"


def folded(title: str, text: str) -> str:
    """Hidden behind its title until a reader wants it."""
    return f"<details><summary>{title}</summary>\n\n{text}\n\n</details>"


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text.replace("|", "\\|"))[:LONGEST]
