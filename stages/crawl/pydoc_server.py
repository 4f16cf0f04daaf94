"""Runs Python's own documentation server on a free port of the loopback interface, until standard input is closed.

Started as a script by `pydoc_source`, never imported. It is `python -m pydoc -p 0` but for three things:
- pydoc imports every module anew for each page, for people who edit it. Here a module is imported once: many extension
  modules cannot be imported twice in one process (numpy answers ImportError from its second page on), and torch takes seconds.
- It ends with the process that started it, even if a page hangs: pydoc itself would wait for the page.
- Pages print values, those of environment variables among them (os.environ is one). So only the variables named on the
  command line are kept, and the home folder, whose name is another every time, reads ~.
"""

import os
import pydoc
import sys
import webbrowser

if __name__ == "__main__":
    lifeline = os.dup(0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # modules that read standard input when imported find it empty
    webbrowser.open = lambda *args, **kwargs: False  # type: ignore[assignment]
    for name in set(os.environ) - set(sys.argv[1:]):
        del os.environ[name]
    home, cram = os.environ["HOME"], pydoc.cram  # type: ignore[attr-defined]
    # in long values before they are cut, which may be in the middle of the name; the rest in the whole page
    pydoc.cram = lambda text, maxlen: cram(text.replace(home, "~"), maxlen)  # type: ignore[attr-defined]
    page = pydoc._url_handler  # type: ignore[attr-defined]
    sys.argv = ["pydoc"]
    locate = pydoc.locate
    pydoc.locate = lambda path, forceload=0: locate(path)
    server = pydoc._start_server(lambda *asked: page(*asked).replace(home, "~"), "127.0.0.1", 0)  # type: ignore[attr-defined]
    print(f"port {server.port}", flush=True)
    os.read(lifeline, 1)
    os._exit(0)
