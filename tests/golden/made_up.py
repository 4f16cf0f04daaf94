"""Made-up reference pages: signatures with descriptions in invented words, a topic for each page.

They are the same on every machine.
"""

from __future__ import annotations

import random
from functools import cache
from typing import Any

from stages.digests import digest

_SYLLABLES = [
    "ba",
    "cor",
    "del",
    "fi",
    "gur",
    "ho",
    "kem",
    "lo",
    "mi",
    "nar",
    "pu",
    "rel",
    "su",
    "tan",
    "vo",
    "wex",
]
_PLAIN = ["the", "of", "a", "with", "each", "when", "for", "that", "given", "from"]


@cache
def page(number: int, functions: int = 12) -> str:
    """The text of one page.

    Its invented words come from a small vocabulary of its own and one shared by every fourth page.
    """
    chance = random.Random(f"page {number}")
    own, shared = _vocabulary(f"own {number}"), _vocabulary(f"topic {number % 4}")
    lines = [
        f"module{number}",
        "",
        f"About {chance.choice(own)} {chance.choice(shared)}",
        "",
        _sentence(chance, own, shared),
        "",
        "Functions",
        "",
    ]
    for n in range(functions):
        lines.append(
            f"{chance.choice(own)}_{n}({chance.choice(shared)}, {chance.choice(own)}=None)"
        )
        lines += [_sentence(chance, own, shared) for _ in range(chance.randint(1, 3))]
    return "\n".join(lines)


def documents(first: int, count: int, **columns: Any) -> list[dict[str, Any]]:
    """Rows with the columns that all document tables share."""
    rows = []
    for number in range(first, first + count):
        url = f"http://example.org/module{number}"
        row = {
            "id": digest("made_up", url),
            "url": url,
            "source": "made_up",
            "title": f"module{number}",
            "language": "en",
            "license": None,
        }
        rows.append(row | {"text": page(number)} | columns)
    return rows


def unique(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows as dedup would give them, each its own cluster."""
    return [row | {"cluster": row["id"], "cluster_size": 1} for row in rows]


@cache
def _vocabulary(name: str) -> list[str]:
    chance = random.Random(name)
    return ["".join(chance.choices(_SYLLABLES, k=chance.randint(2, 4))) for _ in range(12)]


def _sentence(chance: random.Random, own: list[str], shared: list[str]) -> str:
    words = []
    for _ in range(chance.randint(4, 9)):
        words += [chance.choice(_PLAIN), chance.choice(own if chance.random() < 0.6 else shared)]
    return " ".join(words).capitalize() + "."
