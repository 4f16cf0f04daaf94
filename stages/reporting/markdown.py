"""Markdown with untrusted text: whatever the text contains, it is shown as text.

Pages, vocabularies, manifests and recipes can contain Markdown and HTML. A model card or a page of
the Prefect UI must not interpret it: no link can be clicked, no image is loaded, no tag takes
effect. `plain` escapes text within a line, `paragraphs` several lines, `quotation` a block. Figures
and tables use these functions.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import stages
from data_contracts import Manifest
from data_contracts.credentials import masked, masked_start, masked_values
from data_contracts.foreign_text import json_text, line, shown
from stages.renamed_settings import with_frozen_keys

MAX_CHARS = 1500  # of a quotation or a line

# A single ` or an _ within a word does no harm.
_MARKS = re.compile(r"[\\|\[\]*~$]|`(?=`)|(?<=`)`|#(?=#*$)|(?<![^\W_])_|_(?![^\W_])")
# The start of a heading, a list or a ruled line.
_BEGINS_BLOCK = re.compile(r"^(\d*)([#.)+=-])(?=[\s#=-]|$)")
# Some renderers turn addresses into links.
_MAKES_LINK = re.compile(r"(?<=\w):(?=//)|(?<=\bwww)\.", re.IGNORECASE)


def number(value: Any) -> str:
    """Format a value: integers with separators, floats with four digits, None and "" as a dash."""
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    return plain(str(value))


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table, or a sentence if there are no rows."""
    lines = [f"| {' | '.join(map(number, row))} |" for row in rows]
    if not lines:
        return "None."
    heading = f"| {' | '.join(map(plain, head))} |"
    return "\n".join([heading, "|" + "---|" * len(head), *lines])


def quotation(text: str, language: str = "text") -> str:
    """Return a fenced code block that no text in it can end."""
    if len(text) > MAX_CHARS:
        text = masked_start(text, MAX_CHARS) + " …"
    text = shown(masked(text))
    longest_run = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest_run + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def settings(manifest: Manifest) -> str:
    """Return the settings of a stage as JSON, as they were given.

    Leaves out those that do not affect the result. What affects it is in the manifest under its
    frozen key, which is another one than its name if the setting was renamed or grouped.
    """
    renamed = _renamed_settings(manifest.stage)
    given = {
        name: value
        for name, value in manifest.settings.items()
        if not manifest.config.keys().isdisjoint(with_frozen_keys(renamed, {name: value}))
    }
    return json_block(given)


def _renamed_settings(stage: str) -> Mapping[str, str]:
    """Return old path → new path; nothing for a stage that the map no longer has."""
    return stages.stage(stage).config_class.RENAMED if stage in stages.NAMES else {}


def json_block(values: Any) -> str:
    """Return plain values as a fenced block of JSON."""
    safe = masked_values(values)
    written = json_text(json.dumps(safe, indent=1, ensure_ascii=False, sort_keys=True))
    return f"```json\n{written}\n```"


def folded(title: str, text: str) -> str:
    """Return a section that is hidden behind its title until a reader opens it."""
    return f"<details><summary>{plain(title)}</summary>\n\n{text}\n\n</details>"


def plain(text: str) -> str:
    """Return the text as one line without effective Markdown, HTML, links or cell ends."""
    words = " ".join(text.split())
    one_line = line(masked_start(words, MAX_CHARS))
    marked = _MARKS.sub(r"\\\g<0>", one_line)
    marked = _BEGINS_BLOCK.sub(r"\1\\\2", marked)
    escaped = html.escape(marked, quote=False)
    return _MAKES_LINK.sub(lambda found: f"&#{ord(found[0])};", escaped)


def paragraphs(text: str) -> str:
    """Escape each line like `plain`, and keep the lines."""
    return "\n".join(plain(part) for part in text.splitlines())
