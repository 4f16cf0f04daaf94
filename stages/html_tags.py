"""Bounds the attributes of a tag before a page is given to a parser of HTML.

libxml2 and lexbor look through all attributes of a tag for each further one: a page of a megabyte
with one tag of 100,000 attributes takes them a minute of processor time. So a scan, in proportion
to the length of the page, counts them first. It finds tags as libxml2 does, which follows the HTML
Standard (section 13.2.5): a quoted value may hold `>`, and nothing is a tag in a comment, a script
or a title. lexbor finds some others, in SVG for example; clean bounds its time as well.
"""

from __future__ import annotations

import re
from collections import Counter

MAX_ATTRIBUTES = 1024  # of one tag; pages have some dozens

_BLANK = r"\t\n\f\r "
_ATTRIBUTE = (
    rf"[{_BLANK}/]*+[^{_BLANK}/>][^{_BLANK}/>=]*+"
    rf"(?:[{_BLANK}]*+=[{_BLANK}]*+(?:\"[^\"]*+\"?+|'[^']*+'?+|[^{_BLANK}>]*+))?+"
)
_EACH_ATTRIBUTE = re.compile(_ATTRIBUTE)
_QUOTED_CLOSE = re.compile(r"=\s*+(?:\"[^\">]*+>|'[^'>]*+>)")
_TAG = re.compile(
    rf"<(?P<end>/?)(?P<name>[A-Za-z][^{_BLANK}/>]*+)(?P<attributes>(?:{_ATTRIBUTE})*+)"
    rf"(?P<close>[{_BLANK}/]*+>?+)"
    r"|<!--(?:-?>|.*?(?:--!?>|\Z))"
    r"|<[!?/][^>]*+",
    re.DOTALL,
)
# A page has one of each: a parser gives it the attributes of all of its tags.
_ROOTS = ("html", "body")
_EACH_ROOT = re.compile(r"<(?:html|body)\b", re.IGNORECASE)
# Characters that an extractor deletes, perhaps those that keep something from being a tag.
_DELETED = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
# Elements whose content is text up to their end tag, whatever it looks like.
_TEXT_ELEMENTS = {
    name: re.compile(rf"</{name}(?=[{_BLANK}/>])", re.IGNORECASE)
    for name in ("iframe", "noembed", "noframes", "style", "textarea", "title", "xmp")
}
# A script may hold a comment, and that another script, whose end tag does not end the first.
_SCRIPT_MARK = re.compile(
    rf"(?P<close><!---?>|-->)|(?P<open><!--)|<(?P<end>/?)script(?=[{_BLANK}/>])", re.IGNORECASE
)


class WideTagError(ValueError):
    """A tag has more attributes than any page needs."""

    def __init__(self, name: str, attributes: int):
        bound = f"of which {MAX_ATTRIBUTES:,} are read"
        super().__init__(f"a tag <{name[:40]}> of {attributes:,} attributes, {bound}")


def require_narrow_tags(html: str) -> None:
    """Require that no tag of a page has more than MAX_ATTRIBUTES attributes.

    Raises:
        WideTagError: One has.
    """
    _require_narrow_tags(html)
    if _DELETED.search(html):
        _require_narrow_tags(_DELETED.sub("", html))


def _require_narrow_tags(html: str) -> None:
    if not _may_hold_long_tag(html):
        return
    position = 0
    of_roots: Counter[str] = Counter()
    while tag := _TAG.search(html, position):
        position = tag.end()
        name = tag["name"]
        if name is None:
            continue
        begin, end = tag.span("attributes")
        root = name.lower() if name.lower() in _ROOTS else None
        if root or end - begin >= 2 * MAX_ATTRIBUTES:  # a blank and a letter each
            count = sum(1 for _ in _EACH_ATTRIBUTE.finditer(html, begin, end))
            if root:
                of_roots[root] += count
                count = of_roots[root]
            if count > MAX_ATTRIBUTES:
                raise WideTagError(name, count)
        # To libxml2, <script/> is the whole element.
        if not tag["end"] and not tag["close"].endswith("/>"):
            position = _end_of_text(html, position, name.lower())


def _may_hold_long_tag(html: str) -> bool:
    """Return whether a page may hold a long tag. Most pages hold none, and this is soon seen.

    A tag ends at the first `>` outside of a quoted value.
    """
    longest = max(map(len, html.split(">")))
    if longest >= 2 * MAX_ATTRIBUTES or _QUOTED_CLOSE.search(html):
        return True
    return sum(1 for _ in _EACH_ROOT.finditer(html)) > len(_ROOTS)


def _end_of_text(html: str, begin: int, name: str) -> int:
    """Return where tags can begin again behind the start tag of an element."""
    if name == "plaintext":
        return len(html)
    if name == "script":
        return _end_of_script(html, begin)
    if name in _TEXT_ELEMENTS:
        found = _TEXT_ELEMENTS[name].search(html, begin)
        return found.start() if found else len(html)
    return begin


def _end_of_script(html: str, begin: int) -> int:
    is_comment = is_nested = False
    for mark in _SCRIPT_MARK.finditer(html, begin):
        if mark["open"]:
            is_comment = True
        elif mark["close"]:
            is_comment = is_nested = False
        elif mark["end"] == "":
            is_nested = is_comment
        elif mark["end"] and not is_nested:
            return mark.start()
        elif mark["end"]:
            is_nested = False
    return len(html)
