"""Credentials in addresses: found, masked, refused.

An address ends up in many places: errors, logs, manifests, refs, Prefect's database, the list of
processes. So settings may not hold credentials, and whatever is printed or stored as an error is
masked. Credentials belong in the environment, where only their owner sees them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

MASK = "***"
ADVICE = (
    "take the credentials out of the address and change them, "
    "for a shell keeps its history and others see its commands; "
    "they are read from the environment: "
    "NETRC (a file of hosts, users and passwords, default ~/.netrc), HF_TOKEN, AWS_PROFILE …"
)

# User and password, up to the "@" before the host. A password may hold characters that an address
# should not have: "/", "#", "?", "@". People also leave out the scheme, or write "\\" for "//" and
# %40 for "@".
_USER = re.compile(
    r"(?:(?<=//)|(?<=\\\\))"
    r"(?:[^/?#\s'\"<>]*|[^/\s:@\['\"<>]*:(?!\d{1,5}(?:[/?#\s'\"]|$))[^\s'\"<>]*)(?:@|%40)"
)
_NAMES = (
    r"(?:[\w.-]*(?:token|secret|passw(?:or)?d|passphrase|signature|credential"
    r"|apikey|api[_-]key|access[_-]?key(?:[_-]?id)?)"
    r"|pwd|sig|jwt|auth)"
)
_PARAMETER = re.compile(rf"([?&#;]{_NAMES}=)(?!\*\*\*)[^&#\s'\"<>]+", re.IGNORECASE)
_KEY = re.compile(r"([?&#;]key=)(?!\*\*\*)[\w.~+/%-]{20,}", re.IGNORECASE)
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:(?:://|//)", re.IGNORECASE)


def masked(text: str) -> str:
    """`text` with the credentials of every address in it replaced by ***."""
    if not any(mark in text for mark in ("//", r"\\", "=")):
        return text
    text = _USER.sub(f"{MASK}@", text)
    text = _PARAMETER.sub(rf"\g<1>{MASK}", text)
    return _KEY.sub(rf"\g<1>{MASK}", text)


def holds_credentials(address: str) -> bool:
    """Whether `address` is an address with a user, a password or a token in it.

    Prose that only mentions an address is not one.
    """
    address = address.strip()
    is_one_address = _SCHEME.match(address) or not re.search(r"\s", address)
    if not is_one_address or "://" not in address:
        return False
    joined = re.sub(r"\s", "_", address)  # a password may hold blanks
    return masked(joined) != joined and f"://{MASK}@" not in joined


@contextmanager
def nothing_secret() -> Iterator[None]:
    """Mask credentials in errors that pass through, and in everything that caused them.

    Prefect stores errors with their tracebacks.
    """
    try:
        yield
    except Exception as error:
        chain: list[BaseException] = []
        link: BaseException | None = error
        while link is not None and link not in chain:
            chain.append(link)
            link = link.__cause__ or link.__context__
        for link in chain:
            link.args = tuple(_masked_if_text(value) for value in link.args)
        if all(masked(str(link)) == str(link) for link in chain):
            raise
        # One of the errors keeps its text elsewhere than in its arguments.
        raise RuntimeError(masked(f"{type(error).__name__}: {error}")) from None


def _masked_if_text(value: object) -> object:
    return masked(value) if isinstance(value, str) else value
