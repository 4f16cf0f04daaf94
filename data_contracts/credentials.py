"""Credentials in addresses: found, masked, refused.

An address ends up in many places: errors, logs, manifests, refs, Prefect's database, the list of
processes. So settings may not hold credentials, and whatever is printed or stored as an error is
masked. Credentials belong in the environment, where only their owner sees them. How they look is in
credential_patterns.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from data_contracts import credential_patterns
from data_contracts.credential_patterns import MASK, SEMICOLON

ADVICE = (
    "take the credentials out of the address and change them, "
    "for a shell keeps its history and others see its commands; "
    "they are read from the environment: "
    "NETRC (a file of hosts, users and passwords, default ~/.netrc), HF_TOKEN, AWS_PROFILE …"
)
MAX_CREDENTIAL_CHARS = 4096
_MARKS = ("//", "\\", "=", "%", ":/", "@", "port", "Port")
_CLOSERS = {"'": "'", '"': '"', "`": "`", "<": ">", "[": "]", "(": ")", "{": "}"}
# Behind the name of a host, a comma and a blank end an address, and prose goes on. It has no colon,
# behind which there could be a password, and nothing of a parameter or an encoding.
_HOST_AND_PROSE = re.compile(r"https?://[\w-]+(?:\.[\w-]+)+,\s[^:?&;=%]*\Z", re.IGNORECASE)
_ENDS_IN_TEXT = re.compile(r"[\s'\"`<>,]")


def masked(text: str) -> str:
    """Return `text` with the credentials of every address in it replaced by ***."""
    if not any(mark in text for mark in _MARKS):
        return text
    return "\n".join(map(credential_patterns.masked_line, text.split("\n")))


def masked_start(text: str, max_chars: int) -> str:
    """Return the first characters of `text`, masked before they are cut off.

    A cut in the middle of an address would leave a password without the `@` that shows it.
    """
    return masked(text[: max_chars + MAX_CREDENTIAL_CHARS])[:max_chars]


def masked_values(value: Any) -> Any:
    """Return plain values (as of JSON) with every text in them masked, keys as well.

    A password may hold quotes. In JSON that is masked as one text, it would be cut at the wrong
    ones.
    """
    if isinstance(value, str):
        return masked_address(value)
    if isinstance(value, dict):
        return {masked_values(key): masked_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [masked_values(item) for item in value]
    return value


def masked_address(text: str) -> str:
    """As `masked`; if the whole text is one address, blanks and quotes belong to it."""
    address = _one_address(text)
    if address is None or masked(address) == address:
        return masked(text)
    return masked(address).replace(SEMICOLON, ";")


def holds_credentials(text: str) -> bool:
    """Return whether `text` is an address with a user, a password or a token in it.

    Prose that only mentions an address is not one.
    """
    address = _one_address(text)
    return address is not None and masked(address) != address


def _one_address(text: str) -> str | None:
    """Return the address that `text` is, with _ for what would end an address in a longer text.

    Quotes or brackets may be around it, and something without blanks may come first.

    Returns:
        None if `text` is no address, or one whose credentials are masked already.
    """
    stripped = credential_patterns.EACH_AT_OF_HTML.sub("@", text.strip())
    begin = credential_patterns.start_of_address(stripped)
    if begin is None or f"//{MASK}@" in stripped or re.search(r"\s", stripped[:begin]):
        return None
    if _HOST_AND_PROSE.match(stripped, begin):
        return None
    closer = _CLOSERS.get(stripped[begin - 1 : begin])
    if closer is None:
        return _without_ends(stripped)
    if stripped.endswith(closer):
        return stripped[:begin] + _without_ends(stripped[begin:-1]) + closer
    return None if re.search(r"\s", stripped) else stripped


def _without_ends(address: str) -> str:
    return _ENDS_IN_TEXT.sub("_", address).replace(";", SEMICOLON)


@contextmanager
def nothing_secret() -> Iterator[None]:
    """Mask credentials in errors that pass through, and in everything that caused them.

    Prefect stores errors with their tracebacks.
    """
    try:
        yield
    except Exception as error:
        chain = _chain(error)
        for link in chain:
            link.args = tuple(_masked_argument(value) for value in link.args)
            notes = getattr(link, "__notes__", None)
            if notes:
                link.__notes__ = [masked(note) for note in notes if isinstance(note, str)]
        if all(masked(str(link)) == str(link) for link in chain):
            raise
        # One of the errors keeps its text elsewhere than in its arguments.
        raise RuntimeError(masked(f"{type(error).__name__}: {error}")) from None


def _chain(error: BaseException) -> list[BaseException]:
    """Return an error with its causes, its contexts and the members of groups."""
    chain: list[BaseException] = []
    left: list[BaseException | None] = [error]
    while left:
        link = left.pop()
        if link is None or any(link is known for known in chain):
            continue
        chain.append(link)
        left += [link.__cause__, link.__context__]
        if isinstance(link, BaseExceptionGroup):
            left += link.exceptions
    return chain


def _masked_argument(value: object) -> object:
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, bytes):
        return masked(value.decode("latin-1")).encode("latin-1")
    if type(value) in (list, tuple, dict):
        return masked_values(value)
    return value
