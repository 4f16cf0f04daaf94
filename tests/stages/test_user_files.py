"""Rows of files that people bring: each with its number, and with what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from stages.user_files import read_rows


@pytest.mark.parametrize(
    "line",
    ['{"prompt": "a", "prompt": "b"}', '{"messages": [{"role": "user", "role": "assistant"}]}'],
)
def test_a_row_that_gives_a_key_twice_is_refused_and_the_others_are_read(
    line: str, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "first"}\n' + line + '\n{"prompt": "last"}\n')
    rows = list(read_rows(str(path)))
    assert [(number, value) for number, value, problem in rows if problem is None] == [
        (1, {"prompt": "first"}),
        (3, {"prompt": "last"}),
    ]
    number, start, problem = rows[1]
    assert (number, start.strip()) == (2, line)
    assert problem
    assert problem.startswith("ambiguous: the key ")
    assert problem.endswith(" is given twice")


def test_equal_keys_of_different_objects_are_no_mistake(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"messages": [{"role": "user"}, {"role": "assistant"}], "role": "x"}\n')
    ((_, value, problem),) = read_rows(str(path))
    assert problem is None
    assert value["messages"] == [{"role": "user"}, {"role": "assistant"}]
