"""A title ends up in chats and questions like the text, so it is repaired and redacted like it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.stages.clean.pages import GOOD, clean

TITLE = "Write to Jane at jane.doe@mail.co.uk or +49 30 901820"
REDACTED = "Write to Jane at [EMAIL] or [PHONE]"


def titled(title: str, media_type: str, text: str = GOOD, **settings: Any) -> dict[str, Any]:
    """The row of a page with this title."""
    page = f"# {title}\n\n{text}"
    if media_type == "text/html":
        page = f"<title>{title}</title><p>{text}</p>"
    return clean(page, media_type, **settings)


@pytest.mark.parametrize("extractor", ["fast", "precision"])
@pytest.mark.parametrize("title", [TITLE, TITLE.replace("@", "&#64;")], ids=["plain", "escaped"])
def test_the_title_of_a_page_is_redacted_and_counted(title: str, extractor: str) -> None:
    row = titled(title, "text/html", f"{GOOD} Write to a@b.org.", extractor=extractor)
    assert "reason" not in row
    assert (row["title"], row["redactions"]) == (REDACTED, 3)


def test_the_heading_of_a_markdown_page_is_redacted_and_counted_in_title_and_text() -> None:
    row = titled(TITLE, "text/markdown")
    assert (row["title"], row["redactions"]) == (REDACTED, 4)
    assert row["text"].startswith(f"# {REDACTED}\n")


@pytest.mark.parametrize(
    ("body", "reason", "redactions"),
    [
        ("", "empty", 2),
        ("Ask a@b.org.", "c4_no_lines", 3),
        ("This text of Jane, a@b.org, is too short.", "gopher_too_few_words", 3),
    ],
)
def test_the_title_of_a_page_rejected_at_any_step_is_redacted_and_counted_once(
    body: str, reason: str, redactions: int
) -> None:
    row = titled(TITLE, "text/html", body)
    assert (row["reason"], row["title"], row["redactions"]) == (reason, REDACTED, redactions)


@pytest.mark.parametrize("media_type", ["text/html", "text/markdown"])
def test_only_what_the_settings_name_is_redacted(media_type: str) -> None:
    without_phone = TITLE.replace("+49 30 901820", "[PHONE]")
    assert titled(TITLE, media_type, redact=["phone"])["title"] == without_phone
    assert titled(TITLE, media_type, redact=[])["title"] == TITLE


@pytest.mark.parametrize("media_type", ["text/html", "text/markdown"])
@pytest.mark.parametrize(
    ("title", "settings", "expected"),
    [
        ("The cafe\u0301\u200b by the\u00a0river", {}, "The café by the river"),
        ("The cafÃ© by the river", {}, "The café by the river"),
        ("The ﬁrst bridge", {"normal_form": "NFKC"}, "The first bridge"),
        ("The object at 0x7f3a12bc44d0", {"normalise_addresses": True}, "The object at 0x..."),
        ("jane\u200b.doe@mail.co.uk", {}, "[EMAIL]"),
        ("\u200b", {}, None),
    ],
)
def test_a_title_is_repaired_like_the_text(
    media_type: str, title: str, settings: dict[str, Any], expected: str | None
) -> None:
    assert titled(title, media_type, **settings)["title"] == expected


def test_a_long_title_is_cut_only_after_it_was_redacted() -> None:
    row = titled("a " * 485 + TITLE, "text/markdown")  # the thousandth character is in the address
    assert row["title"] == ("a " * 485 + REDACTED)[:1000]
