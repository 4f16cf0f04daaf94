"""What a page states: links, directives for robots, license."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lxml import etree
from resiliparse.parse.encoding import detect_encoding, map_encoding_to_html5

from stages.crawl.fetch import HttpResponse
from stages.crawl.robots import AGENT
from stages.crawl.urls import canonical
from stages.html_tags import WideTagError, require_narrow_tags

HTML = frozenset({"text/html", "application/xhtml+xml"})
WANTED = HTML | {"text/plain", "text/markdown"}
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# Directives with a value, which look like the name of a robot followed by its directives.
_WITH_VALUE = frozenset(
    {"max-image-preview", "max-snippet", "max-video-preview", "unavailable_after"}
)
_FIRST_BYTES = 1 << 14  # enough to guess a character set


@dataclass(frozen=True)
class PageFacts:
    """What a page states.

    Attributes:
        links: Canonical, each once, in the order of the page.
        meta_robots: The directives of its <meta> elements, verbatim.
        license: The address of its license, verbatim.
        opt_out: The directives with which the page asks not to be used, if any.
    """

    links: tuple[str, ...] = ()
    meta_robots: str | None = None
    license: str | None = None
    opt_out: str | None = None


class UnreadablePageError(Exception):
    """A page cannot be parsed; the others are not affected."""


def read(response: HttpResponse) -> PageFacts:
    """Return what the page of a response states. One that is not HTML has only its headers.

    Raises:
        UnreadablePageError: The page cannot be parsed in reasonable time and memory.
    """
    directives: set[str] = set()
    for name, value in response.headers:
        if name.lower() == "x-robots-tag":
            directives.update(_for_us(value))
    reserved = response.header("tdm-reservation") == "1"
    if response.media_type not in HTML:
        return PageFacts(opt_out=_opt_out(directives, reserved))
    try:
        elements = _elements(response)
    except (MemoryError, etree.LxmlError, WideTagError) as error:
        why = f"a page of {len(response.body):,} bytes that cannot be read: {error}"
        raise UnreadablePageError(f"{why} ({type(error).__name__})") from None
    metas: list[str] = []
    for meta in elements["meta"]:
        name = _attribute(meta, "name").strip().lower()
        content = _attribute(meta, "content")
        if name in ("robots", AGENT):
            metas.append(content)
            directives.update(_directives(content))
        if name == "tdm-reservation" and content.strip() == "1":
            reserved = True
    links: tuple[str, ...] = ()
    if not directives & {"nofollow", "none"}:
        links = tuple(_links(elements, response.url))
    return PageFacts(
        links=links,
        meta_robots=", ".join(metas) or None,
        license=_license(elements),
        opt_out=_opt_out(directives, reserved),
    )


def _elements(response: HttpResponse) -> dict[str, list[Any]]:
    """Return the relevant elements by tag, in one pass; as many as a broken page gives."""
    text = response.body.decode(_encoding(response), "replace")
    text = text.replace("\0", "\N{REPLACEMENT CHARACTER}")
    require_narrow_tags(text)
    parser = etree.HTMLParser(encoding="utf-8")
    root = etree.fromstring(text.encode("utf-8", "replace"), parser)
    found: dict[str, list[Any]] = {"meta": [], "base": [], "link": [], "a": []}
    if root is None:
        return found
    for element in root.iter(*found):
        found[element.tag].append(element)
    return found


def _attribute(element: Any, name: str) -> str:
    """Return the value of an attribute; "" if the element does not have it."""
    return element.get(name) or ""


def _has_relation(element: Any, relation: str) -> bool:
    """Return whether the attribute `rel` of a link names a relation."""
    return relation in _attribute(element, "rel").lower().split()


def _links(elements: dict[str, list[Any]], url: str) -> dict[str, None]:
    base = _base(elements, url)
    found: dict[str, None] = {}
    seen: set[str] = set()
    for element in elements["a"]:
        href, _, _ = _attribute(element, "href").partition("#")
        if not href or href in seen or _has_relation(element, "nofollow"):
            continue
        seen.add(href)
        target = _resolved(href, base)
        if target is not None:
            found[target] = None
    return found


def _base(elements: dict[str, list[Any]], url: str) -> str:
    """Return the address to which links are relative."""
    for element in elements["base"]:
        base = _resolved(_attribute(element, "href"), url)
        if base is not None:
            return base
    return url


def _resolved(href: str, base: str) -> str | None:
    try:
        return canonical(href, base)
    except ValueError:
        return None  # mailto:, javascript:, file:, or broken: it cannot be fetched


def _license(elements: dict[str, list[Any]]) -> str | None:
    for element in elements["link"] + elements["a"]:
        address = _attribute(element, "href")
        if address and _has_relation(element, "license"):
            return str(address)
    return None


def _directives(value: str) -> list[str]:
    """Return the directives in a value, such as "noindex, max-image-preview: none"."""
    text = re.sub(r"\s*:\s*", ":", value.strip().lower())
    return re.split(r"[\s,;]+", text)


def _for_us(header: str) -> Iterator[str]:
    """Yield the directives of an X-Robots-Tag header that are not for other robots.

    The name of a robot applies to all directives that follow it.
    """
    agent = AGENT
    for directive in _directives(header):
        name, colon, rest = directive.partition(":")
        is_robot = colon and name[:1].isalpha()  # else the time of a date
        if is_robot and name not in _WITH_VALUE:
            agent, directive = name, rest
        if agent == AGENT:
            yield directive


def _opt_out(directives: set[str], reserved: bool) -> str | None:
    """Return the words with which a page asks not to be indexed or learned from, if any."""
    words = sorted(directives & {"noai", "noindex", "none"})
    if reserved:
        words.append("tdm-reservation: 1")
    return ", ".join(words) or None


def _encoding(response: HttpResponse) -> str:
    """Return the character set by Python's name: byte order mark, declared, or guessed."""
    for bom, name in _BOMS:
        if response.body.startswith(bom):
            return name
    guessed = detect_encoding(response.body[:_FIRST_BYTES])
    for charset in (response.charset, guessed):
        html5 = None
        if charset:
            html5 = map_encoding_to_html5(charset, fallback_utf8=False)
        if not html5:
            continue
        try:
            return codecs.lookup(html5).name
        except LookupError:
            continue
    return "utf-8"
