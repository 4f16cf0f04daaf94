"""HTML to plain text that keeps the structure that carries meaning.

Headings are alone on their lines, code keeps its form, and descriptions are indented: a <dd> is
indented by four spaces under its <dt>, as in a dictionary, and a blank line ends it. Without tags
this would be lost, and on reference pages it is what separates a signature from its description.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import unescape

from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.html import HTMLTree

from stages.clean.decoding import decode
from stages.clean.refusal import Rejection
from stages.html_tags import WideTagError, require_narrow_tags

INDENT = "    "
MAX_DEPTH = 6  # deeper descriptions are not indented further

# Control characters from here on pass through the extractor and mean "indent by n levels from here
# on". HTML allows none of them.
_LEVEL = 0x10
_MARKS = "".join(chr(_LEVEL + depth) for depth in range(MAX_DEPTH + 1))
_MARK = re.compile(f"[{_MARKS}]")
_TERMS = re.compile(r"<(/?)(d[ltd])(?=[\s>/])[^>]*>", re.IGNORECASE)
_TITLE = re.compile(r"<title[^>]*>([^<]*)</title", re.IGNORECASE)


@dataclass(frozen=True)
class Layout:
    """The page layout of one generator, whose navigation is known and need not be guessed.

    Attributes:
        mark: Text in the first 1,000 characters by which the generator is recognised.
        navigation: CSS selectors of everything that is not content.
    """

    mark: str
    navigation: tuple[str, ...]


PYDOC = Layout(
    "/_pydoc.css", ("body > div:first-child", "body > div:nth-child(2)", "td.extra", "form")
)
LAYOUTS = (PYDOC,)


def extract_text(body: bytes) -> str:
    """Extract the text of an HTML page with the default settings."""
    text, _ = extract(decode(body))
    return text


def extract(html: str, precision: bool = False) -> tuple[str, str | None]:
    """Extract text and title of an HTML page.

    Args:
        html: The decoded page.
        precision: Use trafilatura, which is slower and drops more of what surrounds an article.
            Pages with a known layout are always read with resiliparse.

    Raises:
        Rejection: `too_many_attributes`, on which a parser would spend minutes.
    """
    try:
        require_narrow_tags(html)
    except WideTagError as error:
        raise Rejection("too_many_attributes", str(error)) from None
    layout = _layout_of(html)
    if precision and layout is None:
        return _extract_article(html)
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
        lines = _without_gutters(lines)
    return "\n".join(lines).strip("\n"), _on_one_line(tree.title or "")


def _extract_article(html: str) -> tuple[str, str | None]:
    import trafilatura  # takes a second to import, so only those who use it wait for it

    text = trafilatura.extract(html, include_comments=False, favor_precision=True)
    found = _TITLE.search(html)
    title = _on_one_line(unescape(found[1])) if found else None
    return text or "", title


def _layout_of(html: str) -> Layout | None:
    head = html[:1000]
    for layout in LAYOUTS:
        if layout.mark in head:
            return layout
    return None


def _on_one_line(title: str) -> str | None:
    return " ".join(title.split()) or None


def _without_gutters(lines: Sequence[str]) -> list[str]:
    """Start a new paragraph where a table cell only paints a margin.

    Such a cell leaves blanks and a tab before the text.
    """
    result: list[str] = []
    for line in lines:
        content = line.lstrip()
        margin = line[: len(line) - len(content)]
        if "\t" in margin:
            result += ["", content]
        else:
            result.append(line)
    return result


def _with_levels(html: str) -> str:
    """Insert a level mark wherever a description begins or ends, even without an end tag."""
    if "<dd" not in html and "<DD" not in html:
        return html
    open_lists: list[bool] = []  # for each open <dl>: whether one of its descriptions is open
    pieces: list[str] = []
    copied = 0  # characters of `html` that are already in `pieces`
    for tag in _TERMS.finditer(html):
        is_end_tag = bool(tag[1])
        name = tag[2].lower()
        if _ends_description(name, is_end_tag, open_lists):
            open_lists[-1] = False
            pieces += [html[copied : tag.start()], _mark(sum(open_lists))]
            copied = tag.start()
        if name == "dl" and not is_end_tag:
            open_lists.append(False)
        elif name == "dl" and open_lists:
            open_lists.pop()
        elif name == "dd" and not is_end_tag:
            if not open_lists:
                open_lists.append(False)
            open_lists[-1] = True
            pieces += [html[copied : tag.end()], _mark(sum(open_lists))]
            copied = tag.end()
    return "".join(pieces) + html[copied:]


def _ends_description(name: str, is_end_tag: bool, open_lists: Sequence[bool]) -> bool:
    """Return whether a <dl>, <dt> or <dd> tag ends the open description of the innermost list."""
    if not open_lists or not open_lists[-1]:
        return False
    if is_end_tag:
        return name != "dt"
    return name != "dl"


def _mark(depth: int) -> str:
    return chr(_LEVEL + min(depth, MAX_DEPTH))


def _indented(marked: Sequence[str]) -> list[str]:
    """Turn level marks into indentation, and add a blank line after each description."""
    lines: list[str] = []
    depth = 0
    for line in marked:
        # Marks are not printable, so printable lines need no search.
        marks = [] if line.isprintable() else _MARK.findall(line)
        if not marks:
            lines.append(INDENT * depth + line if line else "")
            continue
        if line.lstrip().startswith(marks[0]):
            depth = ord(marks[0]) - _LEVEL
        depth_after = ord(marks[-1]) - _LEVEL
        content = _MARK.sub("", line).rstrip()
        if content:
            lines.append(INDENT * depth + content)
        if depth_after < depth:
            lines.append("")
        depth = depth_after
    return lines
