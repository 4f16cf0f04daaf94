"""The guides of the stages as Markdown files, and a JSON lines file made up on the spot. HTTP has its own tests: its rows hold the time."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

_TEMPORARY = tempfile.TemporaryDirectory(
    prefix="groundup-golden-crawl-"
)  # one per process, removed when it ends
_FOLDER = Path(_TEMPORARY.name)
(_FOLDER / "rows.jsonl").write_text(
    "".join(json.dumps({"text": f"Row {n} of a file.", "n": n}) + "\n" for n in range(20))
    + '{"n": 21}\n'
)


def inputs(publish: Any) -> dict[str, Any]:
    return {}


SETTINGS: dict[str, Any] = {
    "sources": [
        {
            "kind": "files",
            "name": "guides",
            "paths": [str(Path(__file__).parents[2] / "stages" / "*" / "README.md")],
        },
        {"kind": "files", "name": "rows", "paths": [str(_FOLDER / "rows.jsonl")]},
    ]
}
BAD: list[tuple[dict[str, Any], str]] = [
    (
        {"sources": [{"kind": "files", "paths": [str(_FOLDER / "*.txt")]}]},
        r"\*\.txt: there is no such file",
    ),
    (
        {"sources": [{"kind": "files", "paths": [str(_FOLDER)], "text_field": "body"}]},
        r"0 documents \(unreadable_row 21\)",
    ),
    (
        {"sources": [{"kind": "web", "name": "w", "seeds": ["http://127.0.0.1:9/"]}]},
        r"none of its seeds can be had.*address_refused",
    ),
]
