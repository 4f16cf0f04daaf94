"""Pages that are kept and pages that are refused, one for each of several reasons."""

from __future__ import annotations

import hashlib
from typing import Any

from stages.digests import digest

_PROSE = (
    "The {0} of the valley is known to all who have lived there for a long time, and every spring "
    "it is opened to the public. It was built by people who wanted to have a place that would "
    "last, with walls of stone and a roof of slate. Visitors who come to see the {0} are told that "
    "the oldest part of it is more than four hundred years old. Nobody knows the name of the "
    "person who drew the plans, but the drawings have been kept with great care."
)
_GERMAN = (
    "Der Garten des Hauses ist für alle geöffnet, die ihn sehen wollen, und der Eintritt ist frei. "
)


def _html(title: str) -> bytes:
    return f"<title>{title}</title><h1>{title}</h1><p>{_PROSE.format(title)}</p>".encode()


_PAGES: list[tuple[str, bytes, str | None]] = [
    ("text/html", _html("bridge"), "utf-8"),
    ("text/html", _html("mill"), "utf-8"),
    ("text/html", _html("tower"), "utf-8"),
    (
        "text/plain",
        (
            _PROSE.format("well") + "\n\nWrite to keeper@valley-museum.org or look at example.com."
        ).encode(),
        None,
    ),
    ("text/markdown", ("# Garden\n\n" + _PROSE.format("garden")).encode(), "utf-8"),
    ("text/plain", _GERMAN.encode() * 5, "utf-8"),
    ("text/plain", b"This text is too short.", "utf-8"),
    ("application/pdf", b"%PDF-1.7", None),
    ("text/html", b"<html>\x00\x01\x02\x03</html>", "utf-8"),
]


def document(number: int, media_type: str, body: bytes, charset: str | None) -> dict[str, Any]:
    """A row of raw_documents."""
    url = f"http://example.org/{number}"
    return {
        "id": digest("golden", url),
        "url": url,
        "source": "golden",
        "body": body,
        "media_type": media_type,
        "charset": charset,
        "truncated": False,
        "body_sha256": hashlib.sha256(body).hexdigest(),
        "depth": 0,
        "redirects": [],
        "robots": "not_applicable",
    }


def inputs(publish: Any) -> dict[str, Any]:
    return {
        "raw_documents": publish(
            "raw_documents",
            documents=[document(n, *page) for n, page in enumerate(_PAGES)],
            failures=[],
        )
    }


SETTINGS: dict[str, Any] = {"workers": 1}
BAD: list[tuple[dict[str, Any], str]] = [
    ({"language": {"model": "/nowhere/lid.ftz"}}, r"clean\.language\.model: .*does not exist"),
    ({"rules": ["gofer"]}, r"clean\.rules\.0 = 'gofer': .*gopher_quality"),
    (
        {"gopher_quality": {"min_word": 3}},
        r"clean\.gopher_quality\.min_word is not a setting; did you mean 'min_words'",
    ),
]
