"""SECURITY.md names a test for each claim, and each of these tests is there."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent
SECURITY = (HERE.parent.parent / "SECURITY.md").read_text("utf-8")
ROW = re.compile(r"^\| (?P<claim>.+) \| `(?P<file>test_\w+\.py)::(?P<name>test_\w+)` \|$")
HEADINGS = ("| claim | test |", "|---|---|")


def test_each_claim_names_a_test_that_is_there() -> None:
    rows = [line for line in SECURITY.splitlines() if line.startswith("|") and line not in HEADINGS]
    assert len(rows) > 40
    for row in rows:
        named = ROW.match(row)
        assert named, f"no test: {row}"
        written = (HERE / named["file"]).read_text("utf-8")
        assert f"def {named['name']}(" in written, row
