"""The address of Python's own documentation server, as crawl starts it.

It is the only source whose examples may be run. Only pages that crawl fetched from a server that it
started itself, on the loopback interface, have addresses of this origin: all other kinds of source
refuse them. So such an address proves where a page comes from. The name of a source, which anybody
can choose, does not.
"""

from __future__ import annotations

ORIGIN = "http://pydoc.localhost"


def is_documentation_server(url: str) -> bool:
    """Return whether a canonical address belongs to the built-in documentation server."""
    return url.startswith(f"{ORIGIN}/")
