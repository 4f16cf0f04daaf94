"""Made-up pages of a small site, as a web archive, with something for each stage to do.

There are reference pages with signatures, articles, near copies, pages that the rules of `clean`
refuse, and addresses to redact. The bytes are the same on every machine.
"""

from __future__ import annotations

import random
import uuid
from io import BytesIO
from pathlib import Path

from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

_ORIGIN = "http://docs.example.org"
_DATE = "2026-01-31T12:00:00Z"
_THINGS = [
    "list",
    "file",
    "string",
    "number",
    "table",
    "queue",
    "record",
    "path",
    "pattern",
    "date",
    "counter",
    "buffer",
]
_VERBS = ["Return", "Remove", "Write", "Read", "Sort", "Copy", "Split", "Merge", "Count", "Find"]
_ADJECTIVES = [
    "new",
    "empty",
    "sorted",
    "given",
    "shallow",
    "first",
    "last",
    "longest",
    "smallest",
    "open",
]
_ENDINGS = [
    "with the default value if there is none",
    "and leave the other one as it was",
    "without reading the whole of it into memory",
    "which is the usual way to do this",
    "so that the result can be used as a key",
    "unless the caller asks for something else",
]
_ARTICLE = [
    "The {a} {t} was built by people who wanted to have a place that would last for many years.",
    "Every spring it is opened to the public, and visitors come from the villages to see the {t}.",
    "Nobody knows the name of the person who drew the plans, but a {a} copy of them has been kept.",
    "It is said that the oldest part of the {t} is more than four hundred years old.",
    "In the winter the {a} rooms are closed, and the keeper of the {t} writes down what has to be "
    "mended.",
    "Those who have seen it once will tell you that the {t} is larger than it looks from the road.",
    "The money for the repairs is given by a society that has looked after the {a} {t} since it "
    "was founded.",
]
_GERMAN = (
    "Der Garten des Hauses ist für alle geöffnet, die ihn sehen wollen, und der Eintritt ist frei. "
)
_BUILDINGS = [
    "bridge",
    "mill",
    "tower",
    "garden",
    "library",
    "harbour",
    "lighthouse",
    "station",
    "market",
    "theatre",
    "chapel",
    "well",
]
_QUALITIES = ["old", "stone", "wooden", "northern", "famous", "quiet", "royal", "painted"]


def write(archive: Path) -> None:
    """Write all pages to a packed web archive."""
    with archive.open("wb") as file:
        writer = WARCWriter(file, gzip=True)
        for path, media_type, body in pages():
            headers = [("Content-Type", media_type), ("Content-Length", str(len(body)))]
            response = StatusAndHeaders("200 OK", headers, protocol="HTTP/1.1")
            record = writer.create_warc_record(
                f"{_ORIGIN}/{path}",
                "response",
                payload=BytesIO(body),
                http_headers=response,
                warc_headers_dict={"WARC-Date": _DATE, "WARC-Record-ID": _record_id(path)},
            )
            writer.write_record(record)


def _record_id(path: str) -> str:
    return f"<urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, path)}>"


def pages() -> list[tuple[str, str, bytes]]:
    """(path, media type, body) of every page."""
    found = [_reference(number) for number in range(40)]
    found += [_article(number) for number in range(40)]
    found += [_near_copy(number) for number in range(4)]
    found.append(("garten.txt", "text/plain; charset=utf-8", _GERMAN.encode() * 5))
    found.append(("short.txt", "text/plain; charset=utf-8", b"This text is too short."))
    found.append(("picture.pdf", "application/pdf", b"%PDF-1.7"))
    return found


def _reference(number: int) -> tuple[str, str, bytes]:
    chance = random.Random(f"reference {number}")
    name = f"{chance.choice(_THINGS)}{number}"
    lines = [
        f"<h1>module {name}</h1>",
        f"<p>{_description(chance)} {_description(chance)}</p>",
        "<h2>Functions</h2>",
        "<dl>",
    ]
    for function in range(10):
        verb = chance.choice(_VERBS).lower()
        first, second = chance.choice(_THINGS), chance.choice(_THINGS)
        signature = f"{verb}_{function}({first}, {second}=None)"
        sentences = [_description(chance) for _ in range(chance.randint(1, 3))]
        lines.append(f"<dt>{signature}</dt><dd>{' '.join(sentences)}</dd>")
    lines.append("</dl>")
    return f"{name}.html", "text/html; charset=utf-8", _html(f"module {name}", lines)


def _description(chance: random.Random) -> str:
    adjective = chance.choice(_ADJECTIVES)
    thing, other = chance.choice(_THINGS), chance.choice(_THINGS)
    verb, ending = chance.choice(_VERBS), chance.choice(_ENDINGS)
    return f"{verb} the {adjective} {thing} of a {other} {ending}."


def _article(number: int) -> tuple[str, str, bytes]:
    chance = random.Random(f"article {number}")
    title, lines = _article_lines(chance)
    if number % 8 == 0:
        lines.append(
            f"<p>Write to keeper{number}@valley-museum.org if you want to be shown the rooms.</p>"
        )
    return f"article-{number}.html", "text/html; charset=utf-8", _html(title, lines)


def _near_copy(number: int) -> tuple[str, str, bytes]:
    chance = random.Random(f"article {number}")
    title, lines = _article_lines(chance)
    lines.append("<p>This page was printed for you.</p>")
    return f"print/article-{number}.html", "text/html; charset=utf-8", _html(title, lines)


def _article_lines(chance: random.Random) -> tuple[str, list[str]]:
    building, quality = chance.choice(_BUILDINGS), chance.choice(_QUALITIES)
    title = f"The {quality} {building}"
    lines = [f"<h1>{title}</h1>"]
    for section in ("History", "Visits", "Repairs"):
        lines.append(f"<h2>{section}</h2>")
        for _ in range(2):
            sentences = [
                chance.choice(_ARTICLE).format(a=chance.choice(_QUALITIES), t=building)
                for _ in range(4)
            ]
            lines.append(f"<p>{' '.join(sentences)}</p>")
    return title, lines


def _html(title: str, lines: list[str]) -> bytes:
    body = "\n".join(lines)
    return f"<!doctype html>\n<title>{title}</title>\n{body}\n".encode()
