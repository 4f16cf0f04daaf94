"""Tables, numbers and quotations in markdown, safe against what may stand in the data."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from data_contracts import Manifest

LONGEST = 1500  # characters of a quotation


def number(value: Any) -> str:
    """Counts with separators, measurements with four figures, nothing as a dash."""
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else plain(str(value))


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table, or a sentence if there are no rows."""
    lines = [f"| {' | '.join(map(number, row))} |" for row in rows]
    return "\n".join([f"| {' | '.join(head)} |", "|" + "---|" * len(head), *lines]) if lines else "None."


def quotation(text: str) -> str:
    """A fenced block that no text can end early."""
    text = text if len(text) <= LONGEST else text[:LONGEST] + " …"
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}text\n{text}\n{fence}"


def settings(manifest: Manifest) -> str:
    """The settings of a stage as they were given, but for those that bear on no result: as JSON."""
    told = {name: value for name, value in manifest.settings.items() if name in manifest.config}
    return f"```json\n{json.dumps(told, indent=1, ensure_ascii=False, sort_keys=True)}\n```"


def folded(title: str, text: str) -> str:
    """Hidden behind its title until a reader wants it."""
    return f"<details><summary>{title}</summary>\n\n{text}\n\n</details>"


def plain(text: str) -> str:
    """One line that is neither HTML nor the end of a cell, whatever stands in it."""
    return re.sub(r"[\\|]", r"\\\g<0>", html.escape(" ".join(text.split())[:LONGEST], quote=False))
