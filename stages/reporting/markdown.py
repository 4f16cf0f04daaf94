"""Markdown of what others wrote: text stays text, whatever stands in it.

Pages, vocabularies, manifests and recipes can hold Markdown and HTML. In a model card or on a page of the Prefect UI nothing of it is
obeyed: no link can be clicked, no image is loaded, no tag is a tag. `plain` is the one function for text in a line, `paragraphs` for
several lines, `quotation` for a block; figures and tables go through them.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from data_contracts import Manifest
from data_contracts.credentials import masked
from data_contracts.foreign_text import json_text, line, shown

LONGEST = 1500  # characters of a quotation

_MARKS = re.compile(
    r"[\\|\[\]*~$]|`(?=`)|(?<=`)`|#(?=#*$)|(?<![^\W_])_|_(?![^\W_])"
)  # a lone ` or _ in a word does no harm
_BEGINS_BLOCK = re.compile(r"^(\d*)([#.)+=-])(?=[\s#=-]|$)")  # a heading, a list, a ruled line
_MAKES_LINK = re.compile(
    r"(?<=\w):(?=//)|(?<=\bwww)\.", re.IGNORECASE
)  # for renderers that look for addresses


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
    return (
        "\n".join([f"| {' | '.join(map(plain, head))} |", "|" + "---|" * len(head), *lines])
        if lines
        else "None."
    )


def quotation(text: str, language: str = "text") -> str:
    """A fenced block that no text can end early."""
    text = shown(masked(text if len(text) <= LONGEST else text[:LONGEST] + " …"))
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"


def settings(manifest: Manifest) -> str:
    """The settings of a stage as they were given, but for those that bear on no result: as JSON."""
    told = {name: value for name, value in manifest.settings.items() if name in manifest.config}
    return json_block(told)


def json_block(values: Any) -> str:
    """Plain values as a fenced block of JSON."""
    written = json_text(json.dumps(values, indent=1, ensure_ascii=False, sort_keys=True))
    return f"```json\n{masked(written)}\n```"


def folded(title: str, text: str) -> str:
    """Hidden behind its title until a reader wants it."""
    return f"<details><summary>{plain(title)}</summary>\n\n{text}\n\n</details>"


def plain(text: str) -> str:
    """One line in which nothing is Markdown, HTML, a link or the end of a cell."""
    one_line = line(masked(" ".join(text.split())[:LONGEST]))
    marked = _BEGINS_BLOCK.sub(r"\1\\\2", _MARKS.sub(r"\\\g<0>", one_line))
    return _MAKES_LINK.sub(lambda found: f"&#{ord(found[0])};", html.escape(marked, quote=False))


def paragraphs(text: str) -> str:
    """The same over several lines, which stay lines."""
    return "\n".join(plain(part) for part in text.splitlines())
