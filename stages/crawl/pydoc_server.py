"""Runs Python's documentation server on a free loopback port until standard input is closed.

`pydoc_source` starts it as a script; nothing imports it. It is `python -m pydoc -p 0` with four
differences:
- pydoc imports every module again for each page, for people who edit it. This server imports a
  module once: many extension modules cannot be imported twice in one process (numpy raises
  ImportError from its second page on), and torch takes seconds.
- It ends with the process that started it, even if a page hangs. pydoc would wait for the page.
- Pages print values, among them those of environment variables (os.environ is one). So only the
  variables named on the command line are kept, and the temporary home folder is printed as ~.
- Pages print the memory address of objects without a literal, <function copy2 at 0x7f…>. It differs
  in every process and teaches nothing, so it is removed, as pydoc itself does in some cases.
"""

import os
import pydoc
import re
import sys
import webbrowser

MEMORY_ADDRESS = re.compile(r"(?:[ \t]|&nbsp;)at(?:[ \t]|&nbsp;)0x[0-9a-f]{6,16}\b", re.IGNORECASE)


def steady(text: str, home: str) -> str:
    """Return `text` without memory addresses and the name of the home folder."""
    return MEMORY_ADDRESS.sub("", text.replace(home, "~"))


if __name__ == "__main__":
    lifeline = os.dup(0)
    # Modules that read standard input when they are imported find it empty.
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    webbrowser.open = lambda *args, **kwargs: False  # type: ignore[assignment]
    for name in set(os.environ) - set(sys.argv[1:]):
        del os.environ[name]
    home, cram = os.environ["HOME"], pydoc.cram  # type: ignore[attr-defined]
    # Long values first, before pydoc cuts them in the middle of a name or number; then whole pages.
    pydoc.cram = lambda text, maxlen: cram(steady(text, home), maxlen)  # type: ignore[attr-defined]
    page = pydoc._url_handler  # type: ignore[attr-defined]
    sys.argv = ["pydoc"]
    locate = pydoc.locate
    pydoc.locate = lambda path, forceload=0: locate(path)
    start = pydoc._start_server  # type: ignore[attr-defined]
    server = start(lambda *request: steady(page(*request), home), "127.0.0.1", 0)
    print(f"port {server.port}", flush=True)
    os.read(lifeline, 1)
    os._exit(0)
