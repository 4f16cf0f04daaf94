"""The address of Python's own documentation server as crawl starts it: the one source whose examples may be run.

Only pages that crawl had from a server that it started itself, on the loopback interface, have addresses of this origin: every
other kind of source refuses them. So an address of it is proof of where a page came from, and a name that somebody gave to a
source is none.
"""

from __future__ import annotations

ORIGIN = "http://pydoc.localhost"


def is_documentation_server(url: str) -> bool:
    """Whether a canonical address is of the built-in documentation server."""
    return url.startswith(f"{ORIGIN}/")
