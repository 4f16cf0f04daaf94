"""Made-up pages with an exact copy, a copy with a few more words, and one page of its own kind."""

from __future__ import annotations

from typing import Any

from stages.digests import digest
from tests.golden import made_up


def row(name: str, text: str) -> dict[str, Any]:
    """A row of clean_documents."""
    return {
        "id": digest("golden", name),
        "url": f"http://example.org/{name}",
        "source": "golden",
        "title": name,
        "text": text,
        "language": "en",
        "license": None,
        "words": len(text.split()),
        "removed_lines": 0,
        "redactions": 0,
    }


def inputs(publish: Any) -> dict[str, Any]:
    texts = {f"page{number}": made_up.page(number, functions=30) for number in range(24)}
    texts |= {
        "copy": texts["page3"].upper(),
        "near": texts["page5"] + " One more line at the end.",
        "short": "Hardly a word.",
    }
    return {
        "clean_documents": publish(
            "clean_documents", documents=[row(*item) for item in texts.items()], rejects=[]
        )
    }


SETTINGS: dict[str, Any] = {"heldout_share": 0.1, "workers": 1}
BAD: list[tuple[dict[str, Any], str]] = [
    ({"threshold": 1.5}, r"dedup\.threshold = 1\.5: .*less than or equal to 1"),
    ({"treshold": 0.7}, r"dedup\.treshold is not a setting; did you mean 'threshold'"),
    ({"permutations": 64, "bands": 65}, r"bands 65 > permutations 64"),
]
