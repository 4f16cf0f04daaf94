"""Texts and pages that the tests of clean share."""

from __future__ import annotations

from functools import cache
from typing import Any

from stages.clean.config import CleanConfig
from stages.clean.document import cleaned
from stages.clean.page import RawPage

GOOD = (
    "The bridge over the river is the oldest thing that the people of the village have built "
    "together. It was made of stone that they carried down from the hills, and it took them more "
    "than nine years. Those who cross it today seldom think of the many hands that were needed to "
    "set each block in its place. A small plate on the northern side tells the year in which the "
    "work was begun.\n\n"
    "In winter the water rises to the third course of the pillars, but nobody has ever seen it "
    "come any higher. Children learn to swim in the shallow part below it, and their parents watch "
    "them from the wall above."
)


@cache
def model_path() -> str:
    return str(CleanConfig().model_path())


def clean(
    body: str | bytes,
    media_type: str = "text/plain",
    charset: str | None = "utf-8",
    **settings: Any,
) -> dict[str, Any]:
    """The columns of one page, cleaned with the given settings."""
    data = body if isinstance(body, bytes) else body.encode()
    page = RawPage(data, media_type, charset)
    return cleaned(page, CleanConfig.parse(settings, "clean"), model_path()).columns()
