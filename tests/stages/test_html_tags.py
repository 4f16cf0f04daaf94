"""No parser of HTML gets a tag of more attributes than it reads in reasonable time."""

from __future__ import annotations

import random
import time
from contextlib import suppress

import pytest
from lxml import etree

from stages import html_tags
from stages.html_tags import MAX_ATTRIBUTES, WideTagError, require_narrow_tags

MANY = MAX_ATTRIBUTES + 1
WIDE = {
    "values": "<a " + " ".join(f'a{n}="b"' for n in range(MANY)) + ">",
    "names": "<a " + " ".join(f"a{n}" for n in range(MANY)) + ">",
    "slashes": "<a" + "".join(f"/{n}" for n in range(MANY)),
    "quotes with ends": "<a" + "".join(f" a{n}='>'" for n in range(MANY)) + ">",
    "no blanks": "<a " + "".join(f"a{n}='b'" for n in range(MANY)) + ">",
    "end tag": "<a></a" + "".join(f" a{n}" for n in range(MANY)) + ">",
    "behind a script": "<script>a < b</script><a" + " a" * MANY + ">",
    "behind a comment": '<!-- <b c="> --><a' + " a" * MANY + ">",
    "behind a title": '<title><b c="</title><a' + " a" * MANY + ">",
    "behind a script in a script": '<script><!-- <script></script><b c="--></script><a'
    + " a" * MANY
    + ">",
    "behind a character that extractors delete": "<\x10a" + " a" * MANY + ">",
    "of an element that a page has once": "".join(f"<BODY a{n}>" for n in range(MANY)),
}
NARROW = {
    "text": "<p>a < b and c </p>" + "word " * 10 * MANY,
    "tags": "<a b c>" * MANY,
    "at the bound": "<a" + " a" * MAX_ATTRIBUTES + ">",
    "script": "<script>for (i = 0; i <n; i++) [" + "1, " * 10 * MANY + "]</script><p>",
    "comment": "<!-- <a " + "word " * 10 * MANY + "--><p>",
    "style": "<style><a " + "word " * 10 * MANY + "</style><p>",
    "textarea": "<TEXTAREA><a " + "word " * 10 * MANY + "</textarea><p>",
    "plain text": "<plaintext><a " + "word " * 10 * MANY,
    "long value": f'<img src="data:{"word " * 10 * MANY}">',
    "declaration": "<!DOCTYPE html " + "word " * 10 * MANY + "><p>",
}
PIECES = [
    "<a",
    "<A ",
    "<b",
    "</a",
    "</b ",
    ">",
    "/>",
    " ",
    "\n",
    "/",
    "=",
    '"',
    "'",
    " x{n}",
    " x{n}=",
    ' x{n}="',
    " x{n}='",
    " x{n}=y",
    " x{n} x{n}a x{n}b x{n}c x{n}d x{n}e",
    " x{n} x{n}a x{n}b x{n}c x{n}d x{n}e>",
    "<!--",
    "-->",
    "--!>",
    "<!-->",
    "<!",
    "<?",
    "<![CDATA[",
    "]]>",
    "<script>",
    "</script>",
    "<script ",
    "<title>",
    "</title>",
    "<style>",
    "</style >",
    "<textarea>",
    "</textarea/",
    "<xmp>",
    "</xmp>",
    "<iframe>",
    "</iframe>",
    "<noscript>",
    "<svg>",
    "<plaintext>",
    "word",
]


@pytest.mark.parametrize("page", WIDE.values(), ids=WIDE)
def test_a_tag_of_too_many_attributes_is_refused_however_it_is_written(page: str) -> None:
    with pytest.raises(WideTagError, match=f"of {MANY:,} attributes, of which {MAX_ATTRIBUTES:,}"):
        require_narrow_tags(f"<html><p>{page}")


@pytest.mark.parametrize("page", NARROW.values(), ids=NARROW)
def test_what_is_no_tag_has_no_attributes(page: str) -> None:
    require_narrow_tags(f"<html><p>{page}")


def test_no_tag_that_libxml2_finds_is_overlooked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages in which it depends on every rule of the standard where a tag begins and ends."""
    monkeypatch.setattr(html_tags, "MAX_ATTRIBUTES", 4)
    draw = random.Random(7)
    wide = 0
    for _ in range(20_000):
        pieces = draw.choices(PIECES, k=draw.randint(2, 14))
        page = "".join(piece.replace("{n}", str(n)) for n, piece in enumerate(pieces))
        root = etree.fromstring(page.encode(), etree.HTMLParser(encoding="utf-8"))
        elements = root.iter("*") if root is not None else ()
        if any(len(one.attrib) > 4 for one in elements):
            wide += 1
            with pytest.raises(WideTagError):
                require_narrow_tags(page)
    assert wide > 300, "or the pages prove nothing"


LONG = {
    "tags": "<a b=c>" * 100_000,
    "starts": "<a" * 500_000,
    "quotes": "<a b=\"<a b='" * 80_000,
    "comments": "<!--" * 200_000,
    "dashes": "<script><!--" + "-" * 1_000_000,
    "scripts": "<script>" * 100_000,
    "titles": "<title></a" * 80_000,
    "blanks": "<a" + " " * 1_000_000,
    "equals": "<a b" + " =" * 1000 + " " * 1_000_000,
    "end tags": "</" * 500_000,
}


@pytest.mark.parametrize("page", LONG.values(), ids=LONG)
def test_the_time_is_in_proportion_to_the_length_of_the_page(page: str) -> None:
    """For the 20-fold length, time with its square would be 400-fold: minutes."""

    def seconds(given: str) -> float:
        begun = time.process_time()
        with suppress(WideTagError):
            require_narrow_tags(given)
        return time.process_time() - begun

    assert seconds(page) < 100 * seconds(page[: len(page) // 20]) + 5
