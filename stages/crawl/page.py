"""What a page states: links, directives for robots, license."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lxml import etree
from resiliparse.parse.encoding import detect_encoding, map_encoding_to_html5

from stages.crawl.fetch import Answer
from stages.crawl.robots import AGENT
from stages.crawl.urls import canonical

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

    links: Canonical, each once, in the order of the page.
    meta_robots, license: Verbatim.
    opt_out: The directives with which the page asks not to be used, if any.
    """

    links: tuple[str, ...] = ()
    meta_robots: str | None = None
    license: str | None = None
    opt_out: str | None = None


def read(answer: Answer) -> PageFacts:
    """What the page of `answer` states. A page that is not HTML has only its headers."""
    directives: set[str] = set()
    for name, value in answer.headers:
        if name.lower() == "x-robots-tag":
            directives.update(_for_us(value))
    reserved = answer.header("tdm-reservation") == "1"
    if answer.media_type not in HTML:
        return PageFacts(opt_out=_opt_out(directives, reserved))
    elements = _elements(answer)
    metas: list[str] = []
    for meta in elements["meta"]:
        name, content = (meta.get("name") or "").strip().lower(), meta.get("content") or ""
        if name in ("robots", AGENT):
            metas.append(content)
            directives.update(_directives(content))
        reserved = reserved or (name == "tdm-reservation" and content.strip() == "1")
    return PageFacts(
        links=() if directives & {"nofollow", "none"} else tuple(_links(elements, answer.url)),
        meta_robots=", ".join(metas) or None,
        license=_license(elements),
        opt_out=_opt_out(directives, reserved),
    )


def _elements(answer: Answer) -> dict[str, list[Any]]:
    """The relevant elements by tag, in one pass; of a broken page as many as can be parsed."""
    text = answer.body.decode(_encoding(answer), "replace").replace(
        "\0", "\N{REPLACEMENT CHARACTER}"
    )
    found: dict[str, list[Any]] = {tag: [] for tag in ("meta", "base", "link", "a")}
    root = etree.fromstring(text.encode("utf-8", "replace"), etree.HTMLParser(encoding="utf-8"))
    for element in root.iter(*found) if root is not None else ():
        found[element.tag].append(element)
    return found


def _links(elements: dict[str, list[Any]], url: str) -> dict[str, None]:
    base = _base(elements, url)
    found: dict[str, None] = {}
    seen: set[str] = set()
    for element in elements["a"]:
        href = (element.get("href") or "").partition("#")[0]
        if not href or href in seen or "nofollow" in (element.get("rel") or "").lower().split():
            continue
        seen.add(href)
        target = _joined(href, base)
        if target is not None:
            found[target] = None
    return found


def _base(elements: dict[str, list[Any]], url: str) -> str:
    """The address to which links are relative."""
    for element in elements["base"]:
        joined = _joined(element.get("href") or "", url)
        if joined is not None:
            return joined
    return url


def _joined(href: str, base: str) -> str | None:
    try:
        return canonical(href, base)
    except ValueError:
        return None  # mailto:, javascript:, file:, or broken: it cannot be fetched


def _license(elements: dict[str, list[Any]]) -> str | None:
    for element in elements["link"] + elements["a"]:
        if "license" in (element.get("rel") or "").lower().split() and element.get("href"):
            return str(element.get("href"))
    return None


def _directives(value: str) -> list[str]:
    """The directives in a value, such as "noindex, max-image-preview: none"."""
    return re.split(r"[\s,;]+", re.sub(r"\s*:\s*", ":", value.strip().lower()))


def _for_us(header: str) -> Iterator[str]:
    """The directives of an X-Robots-Tag header that are not for other robots.

    The name of a robot applies to all directives that follow it.
    """
    agent = AGENT
    for directive in _directives(header):
        name, colon, rest = directive.partition(":")
        if colon and name[:1].isalpha() and name not in _WITH_VALUE:  # else the time of a date
            agent, directive = name, rest
        if agent == AGENT:
            yield directive


def _opt_out(directives: set[str], reserved: bool) -> str | None:
    """The words with which a page asks not to be indexed or learned from, if any."""
    words = sorted(directives & {"noai", "noindex", "none"})
    if reserved:
        words.append("tdm-reservation: 1")
    return ", ".join(words) or None


def _encoding(answer: Answer) -> str:
    """The character set, as a name that Python knows: by byte order mark, declared, or guessed."""
    for bom, name in _BOMS:
        if answer.body.startswith(bom):
            return name
    for charset in (answer.charset, detect_encoding(answer.body[:_FIRST_BYTES])):
        html5 = map_encoding_to_html5(charset, fallback_utf8=False) if charset else None
        if not html5:
            continue
        try:
            return codecs.lookup(html5).name
        except LookupError:
            continue
    return "utf-8"
