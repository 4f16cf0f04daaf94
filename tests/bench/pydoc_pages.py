"""Pydoc's pages of the standard library.

They are made in a process of its own: making them imports, and reloads, every module.
`python tests/bench/pydoc_pages.py COUNT` prints them as a JSON list.
"""

from __future__ import annotations

import contextlib
import io
import json
import pydoc
import random
import subprocess
import sys

_UNWANTED = ("_", "antigravity", "this", "idlelib", "turtle")


def pydoc_pages(count: int) -> list[str]:
    """At most `count` pages, always the same on the same Python."""
    command = [sys.executable, __file__, str(count)]
    made = subprocess.run(command, capture_output=True, text=True, check=True)
    pages: list[str] = json.loads(made.stdout.splitlines()[-1])
    return pages


def _make(count: int) -> list[str]:
    names = sorted(name for name in sys.stdlib_module_names if not name.startswith(_UNWANTED))
    random.Random(0).shuffle(names)
    with contextlib.redirect_stdout(io.StringIO()):
        page = pydoc._url_handler  # type: ignore[attr-defined]
        return [page(f"{name}.html") for name in names[:count]]


if __name__ == "__main__":
    print(json.dumps(_make(int(sys.argv[1]))))
