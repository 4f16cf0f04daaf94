"""Credentials in addresses: found, masked, refused. They belong into the environment, where only their owner sees them.

An address reaches many places: errors, logs, manifests, refs, Prefect's database, the list of processes. So settings may hold none
(see `refusal`), and whatever is printed or stored as an error is masked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

MASK = "***"
ADVICE = (
    "take the credentials out of the address and change them, for a shell keeps its history and others see its commands; "
    "they are read from the environment: NETRC (a file of hosts, users and passwords, default ~/.netrc), HF_TOKEN, AWS_PROFILE …"
)

# user and password, up to the "@" before the host; a password may hold what no address should: "/", "#", "?", "@"
# people also leave out the scheme, or write "\\" for "//" and %40 for "@"
_USER = re.compile(
    r"(?:(?<=//)|(?<=\\\\))(?:[^/?#\s'\"<>]*|[^/\s:@\['\"<>]*:(?!\d{1,5}(?:[/?#\s'\"]|$))[^\s'\"<>]*)(?:@|%40)"
)
_NAMES = (
    r"(?:[\w.-]*(?:token|secret|passw(?:or)?d|passphrase|signature|credential|apikey|api[_-]key|access[_-]?key(?:[_-]?id)?)"
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
    """Whether `address` is one, and has a user, a password or a token in it. Prose that only mentions one is none."""
    address = address.strip()
    one_address = _SCHEME.match(address) or not re.search(r"\s", address)
    if not one_address or "://" not in address:
        return False
    joined = re.sub(r"\s", "_", address)  # a password may hold blanks
    return masked(joined) != joined and f"://{MASK}@" not in joined


@contextmanager
def nothing_secret() -> Iterator[None]:
    """Errors that pass through here, with all that caused them, hold no credentials: Prefect stores them with their traces."""
    try:
        yield
    except Exception as error:
        chain: list[BaseException] = []
        link: BaseException | None = error
        while link is not None and link not in chain:
            chain.append(link)
            link = link.__cause__ or link.__context__
        for one in chain:
            one.args = tuple(
                masked(value) if isinstance(value, str) else value for value in one.args
            )
        if all(masked(str(one)) == str(one) for one in chain):
            raise
        raise RuntimeError(
            masked(f"{type(error).__name__}: {error}")
        ) from None  # an error that keeps its text elsewhere
