"""What the text keeps of a page's structure."""

from __future__ import annotations

import pydoc
import time

import pytest

from stages.clean.html import extract, extract_text
from stages.clean.refusal import Rejection


def _pydoc_page(module: str) -> str:
    """The page that `python -m pydoc -p` serves."""
    return pydoc._url_handler(f"{module}.html")  # type: ignore[attr-defined]


def test_a_pydoc_page_keeps_signatures_and_indents_their_descriptions() -> None:
    text, title = extract(_pydoc_page("textwrap"))
    lines = text.split("\n")
    assert title == "Pydoc: module textwrap"
    signature = lines.index("indent(text, prefix, predicate=None)")
    next_signature = lines.index("shorten(text, width, **kwargs)")
    description = lines[signature + 1 : next_signature]
    assert lines[signature - 1] == ""
    assert description[0].startswith("    Adds")
    assert all(line.startswith("    ") for line in description if line)


def test_a_pydoc_page_keeps_headings_alone_on_their_lines() -> None:
    lines = extract(_pydoc_page("textwrap"))[0].split("\n")
    for heading in ("Classes", "Functions", "Data", "class TextWrapper(builtins.object)"):
        at = lines.index(heading)
        assert (lines[at - 1], lines[at + 1]) == ("", ""), heading


def test_a_pydoc_page_keeps_doctests_as_they_stand() -> None:
    text = extract(_pydoc_page("textwrap"))[0]
    doctest = "        >>> textwrap.shorten(\"Hello  world!\", width=12)\n        'Hello world!'\n"
    assert doctest in text.replace("\xa0", " ")


def test_a_pydoc_page_loses_its_navigation() -> None:
    text = extract(_pydoc_page("textwrap"))[0]
    for gone in ("Module Index", "Keywords", "textwrap.py", "Module Reference", "Python 3"):
        assert gone not in text


def test_descriptions_end_where_end_tags_are_left_out() -> None:
    terms = "<dl><dt>one<dd>first<dt>two<dd>second <dl><dt>in<dd>inner</dl></dl>"
    page = f"<body><p>Some terms of the trade, explained.</p>{terms}<p>After them.</p>"
    lines = [line for line in extract(page)[0].split("\n") if line]
    assert lines == [
        "Some terms of the trade, explained.",
        "one",
        "    first",
        "two",
        "    second",
        "    in",
        "        inner",
        "After them.",
    ]


def test_code_keeps_its_lines_and_indentation() -> None:
    code = "def f(x):\n    if x:\n        return 1"
    page = (
        "<body><h2>Use</h2><p>Call it so, and it will answer:</p>"
        f"<pre>{code}</pre><p>That is all.</p>"
    )
    text, _ = extract(page)
    assert f"{code}\n" in text


def test_scripts_styles_and_navigation_are_not_text() -> None:
    page = (
        "<html><head><style>p{}</style><script>var x</script></head>"
        "<body><nav><a href=/>Home</a></nav>"
        "<main><p>The only sentence that matters on this page is here.</p></main>"
        "<footer>Imprint</footer></body></html>"
    )
    assert extract_text(page.encode()) == "The only sentence that matters on this page is here."


@pytest.mark.parametrize("precision", [False, True])
def test_both_extractors_give_text_and_title(precision: bool) -> None:
    head = "<head><title> A  title </title></head>"
    article = f"<article><p>{'A sentence of the article. ' * 20}</p></article>"
    page = f"<html>{head}<body>{article}</body></html>"
    text, title = extract(page, precision)
    assert title == "A title"
    assert text.startswith("A sentence of the article.")


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [
        "<table>" + "<tr><td>cell<td>other" * 100_000 + "</table>",
        "<div>" * 3000 + "deep" + "</div>" * 3000,
        "<dl><dd>" * 3000 + "deep",
        "<" * 200_000,
        "<!--" * 100_000,
        "<p>" + "&nbsp;" * 300_000,
        "",
    ],
    ids=["table", "nested", "nested lists", "angles", "comments", "blanks", "empty"],
)
def test_hostile_pages_take_time_in_proportion(page: str) -> None:
    begin = time.process_time()
    extract(page)
    assert time.process_time() - begin < 8


@pytest.mark.parametrize("precision", [False, True])
def test_a_tag_of_too_many_attributes_is_a_reason_of_rejection(precision: bool) -> None:
    page = "<p>text</p><a" + "".join(f" a{n}" for n in range(100_000)) + ">"
    with pytest.raises(Rejection, match="a tag <a> of 100,000 attributes") as error:
        extract(page, precision)
    assert error.value.reason == "too_many_attributes"
