"""HTML to plain text that keeps what structure means: headings alone on their line, code as it stands, descriptions indented.

The description of a term (<dd>) is indented by four spaces under its term (<dt>), as in a dictionary, and a blank line ends it.
HTML loses that when tags go; for reference pages it is what tells a signature from its description.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import unescape

from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.html import HTMLTree

from stages.clean.decoding import decode

INDENT = "    "
MAX_DEPTH = 6  # deeper descriptions are not indented further

_LEVEL = 0x10  # control characters from here on travel through the extractor as "from here indent by n"; HTML allows none of them
_MARKS = "".join(chr(_LEVEL + depth) for depth in range(MAX_DEPTH + 1))
_MARK = re.compile(f"[{_MARKS}]")
_TERMS = re.compile(r"<(/?)(d[ltd])(?=[\s>/])[^>]*>", re.IGNORECASE)
_TITLE = re.compile(r"<title[^>]*>([^<]*)</title", re.IGNORECASE)


@dataclass(frozen=True)
class Layout:
    """Pages of one generator, whose navigation is known and need not be guessed.

    mark: text in the first 1,000 characters that gives the generator away. navigation: CSS selectors of what is no content.
    """

    mark: str
    navigation: tuple[str, ...]


PYDOC = Layout(
    "/_pydoc.css", ("body > div:first-child", "body > div:nth-child(2)", "td.extra", "form")
)
LAYOUTS = (PYDOC,)


def extract_text(body: bytes) -> str:
    """The text of an HTML page as the default settings make it."""
    return extract(decode(body))[0]


def extract(html: str, precision: bool = False) -> tuple[str, str | None]:
    """Text and title of an HTML page. precision: trafilatura (slower, drops more of what surrounds an article)."""
    layout = next((known for known in LAYOUTS if known.mark in html[:1000]), None)
    if precision and layout is None:
        import trafilatura  # a second to import: not for those who do without

        return trafilatura.extract(
            html, include_comments=False, favor_precision=True
        ) or "", _title(html)
    for mark in _MARKS:
        html = html.replace(mark, "")
    tree = HTMLTree.parse(_with_levels(html))
    text = extract_plain_text(
        tree,
        preserve_formatting=True,
        main_content=layout is None,
        list_bullets=True,
        alt_texts=False,
        links=False,
        form_fields=False,
        noscript=False,
        skip_elements=list(layout.navigation) if layout else None,
    )
    lines = _indented([line.rstrip() for line in text.split("\n")])
    if layout:
        lines = [piece for line in lines for piece in _without_gutter(line)]
    return "\n".join(lines).strip("\n"), " ".join((tree.title or "").split()) or None


def _without_gutter(line: str) -> tuple[str, ...]:
    """Cells that only paint a margin leave blanks and a tab before the text; what follows is a paragraph of its own."""
    bare = line.lstrip()
    return ("", bare) if "\t" in line[: len(line) - len(bare)] else (line,)


def _title(html: str) -> str | None:
    found = _TITLE.search(html)
    return " ".join(unescape(found[1]).split()) or None if found else None


def _with_levels(html: str) -> str:
    """`html` with a level mark wherever a description begins or ends, also where its end tag is left out."""
    if "<dd" not in html and "<DD" not in html:
        return html
    open_lists: list[bool] = []  # for each open <dl>: is one of its descriptions open?
    pieces, at = [], 0
    for tag in _TERMS.finditer(html):
        closing, name = bool(tag[1]), tag[2].lower()
        ends = (
            bool(open_lists)
            and open_lists[-1]
            and (closing or name != "dl")
            and not (closing and name == "dt")
        )
        begins = name == "dd" and not closing
        if ends:
            open_lists[-1] = False
            pieces += [html[at : tag.start()], _mark(sum(open_lists))]
            at = tag.start()
        if name == "dl" and not closing:
            open_lists.append(False)
        elif name == "dl" and open_lists:
            open_lists.pop()
        elif begins:
            if not open_lists:
                open_lists.append(False)
            open_lists[-1] = True
            pieces += [html[at : tag.end()], _mark(sum(open_lists))]
            at = tag.end()
    return "".join(pieces) + html[at:]


def _mark(depth: int) -> str:
    return chr(_LEVEL + min(depth, MAX_DEPTH))


def _indented(marked: list[str]) -> list[str]:
    """Level marks made into indentation, and a blank line after each description."""
    lines: list[str] = []
    depth = 0
    for line in marked:
        marks = _MARK.findall(line) if line and not line.isprintable() else ()
        if not marks:
            lines.append(INDENT * depth + line if line else "")
            continue
        if line.lstrip().startswith(marks[0]):
            depth = ord(marks[0]) - _LEVEL
        before, depth = depth, ord(marks[-1]) - _LEVEL
        if rest := _MARK.sub("", line).rstrip():
            lines.append(INDENT * before + rest)
        if depth < before:
            lines.append("")
    return lines
