"""Runs Python's own documentation server on a free port of the loopback interface, until standard input is closed.

Started as a script by `pydoc_source`, never imported. It is `python -m pydoc -p 0` but for four things:
- pydoc imports every module anew for each page, for people who edit it. Here a module is imported once: many extension
  modules cannot be imported twice in one process (numpy answers ImportError from its second page on), and torch takes seconds.
- It ends with the process that started it, even if a page hangs: pydoc itself would wait for the page.
- Pages print values, those of environment variables among them (os.environ is one). So only the variables named on the
  command line are kept, and the home folder, whose name is another every time, reads ~.
- Pages print objects that have no literal with their address in memory, <function copy2 at 0x7f…>: another in every process,
  and nothing to learn from. They read <function copy2>, as pydoc itself has it where it thinks of it.
"""

import os
import pydoc
import re
import sys
import webbrowser

MEMORY_ADDRESS = re.compile(r"(?:[ \t]|&nbsp;)at(?:[ \t]|&nbsp;)0x[0-9a-f]{6,16}\b", re.IGNORECASE)


def steady(text: str, home: str) -> str:
    """`text` without what is another in every process: addresses of objects in memory, the name of the home folder."""
    return MEMORY_ADDRESS.sub("", text.replace(home, "~"))


if __name__ == "__main__":
    lifeline = os.dup(0)
    os.dup2(
        os.open(os.devnull, os.O_RDONLY), 0
    )  # modules that read standard input when imported find it empty
    webbrowser.open = lambda *args, **kwargs: False  # type: ignore[assignment]
    for name in set(os.environ) - set(sys.argv[1:]):
        del os.environ[name]
    home, cram = os.environ["HOME"], pydoc.cram  # type: ignore[attr-defined]
    # in long values before they are cut, which may be in the middle of a name or number; the rest in the whole page
    pydoc.cram = lambda text, maxlen: cram(steady(text, home), maxlen)  # type: ignore[attr-defined]
    page = pydoc._url_handler  # type: ignore[attr-defined]
    sys.argv = ["pydoc"]
    locate = pydoc.locate
    pydoc.locate = lambda path, forceload=0: locate(path)
    server = pydoc._start_server(lambda *asked: steady(page(*asked), home), "127.0.0.1", 0)  # type: ignore[attr-defined]
    print(f"port {server.port}", flush=True)
    os.read(lifeline, 1)
    os._exit(0)
