"""The guides of the stages as Markdown files, and a file of JSON lines that is written here.

HTTP has its own tests: its rows contain the time.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

# One per process, removed when it ends.
_TEMPORARY = tempfile.TemporaryDirectory(prefix="groundup-golden-crawl-")
_FOLDER = Path(_TEMPORARY.name)
_ROWS = [{"text": f"Row {number} of a file.", "n": number} for number in range(20)]
(_FOLDER / "rows.jsonl").write_text(
    "".join(json.dumps(row) + "\n" for row in _ROWS) + '{"n": 21}\n'
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
        r"no seed could be fetched.*address_refused",
    ),
]
