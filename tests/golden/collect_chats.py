"""A page of an API with a doctest, and a page of prose."""

from __future__ import annotations

from typing import Any

from stages.digests import digest
from stages.documentation_server import ORIGIN

API = """\
Python 3.11
textwrap\t\tindex
/usr/lib/python3/textwrap.py
Module Reference

Text wrapping and filling.

Modules
re

Functions

dedent(text)
Remove any common leading whitespace from every line in `text`.

This can be used to make triple-quoted strings line up.
indent(text, prefix, predicate=None)
Adds 'prefix' to the beginning of selected lines in 'text'.

>>> indent('a', '- ')
'- a'
>>> indent('a', '+ ')
'wrong'
nothing(x)

Data
__all__ = ['TextWrapper']
"""
PROSE = """\
Bees

Bees live in hives. A hive has one queen. She lays all the eggs.

Honey

Bees make honey from nectar.
They keep it in cells of wax.
"""


def document(title: str, text: str, source: str = "pydoc") -> dict[str, Any]:
    base = ORIGIN if source == "pydoc" else "http://example.org"
    url = f"{base}/{title.split()[-1]}"
    return {
        "id": digest(source, url),
        "url": url,
        "source": source,
        "title": title,
        "text": text,
        "language": "en",
    }


def inputs(publish: Any) -> dict[str, Any]:
    documents = [document("Pydoc: module textwrap", API), document("About bees", PROSE, "garden")]
    return {"training_documents": publish("training_documents", documents=documents, rejects=[])}


SETTINGS: dict[str, Any] = {"workers": 1, "heldout_share": 0.0}
BAD = [
    (
        {"files": ["/nowhere/chats.jsonl"]},
        r"collect_chats\.files: /nowhere/chats\.jsonl: cannot be read",
    ),
    ({"questions": "klingon"}, r"there are no question forms called .klingon."),
    ({"kinds": []}, r"0 conversations from 2 documents"),
    ({"kinds": ["poem"]}, r"collect_chats\.kinds\.0 = 'poem'"),
]
