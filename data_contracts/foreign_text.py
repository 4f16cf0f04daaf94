"""Text that others wrote, made safe to print.

Pages, file names, templates, vocabularies and manifests can hold any character, and a terminal
obeys some of them. ESC and the C1 controls begin sequences that set titles, write to the clipboard
or hide lines. A carriage return overwrites a line. Unicode's bidirectional controls show a text in
another order. All of them are printed as Python writes them: \\x1b, \\u202e.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from data_contracts.credentials import masked_start

_C0 = "\x00-\x08\x0b-\x1f"  # without tab and newline
_C1 = "\x7f-\x9f"  # with DEL
_DIRECTION = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_UNSEEN = (
    "\u180e\u200b\u2028\u2029\u2060-\u2065\u206a-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"
)
_HALVES = (
    "\ud800-\udfff"  # of a character of more than 16 bits: one alone cannot be written as UTF-8
)
_UNSAFE = f"{_C0}{_C1}{_DIRECTION}{_UNSEEN}{_HALVES}"

_IN_TEXT = re.compile(f"[{_UNSAFE}]")
_IN_A_LINE = re.compile(f"[\t\n{_UNSAFE}]")
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_UNFINISHED = re.compile(r"[\r\ud800-\udbff]\Z")


def shown(text: str) -> str:
    """Escape every control but newline and tab, for a terminal, a log or an error."""
    return _IN_TEXT.sub(_escape, _joined(text).replace("\r\n", "\n"))


def line(text: str) -> str:
    """Do what `shown` does, in one line: for the cell of a table or the name of a file."""
    return _IN_A_LINE.sub(_escape, _joined(text))


def pieces(stream: Iterable[str]) -> Iterator[str]:
    """Do what `shown` does, for text in pieces. A character may be split between two."""
    kept = ""
    for piece in stream:
        text = kept + piece
        unfinished = _UNFINISHED.search(text)
        kept = unfinished[0] if unfinished else ""
        ready = text.removesuffix(kept)
        if ready:
            yield shown(ready)
    if kept:
        yield shown(kept)


def json_text(text: str) -> str:
    """Make JSON text safe to print. The escapes are those of JSON, so its value stays the same."""
    return _IN_TEXT.sub(_json_escape, text)


def brief(value: object, max_length: int = 120) -> str:
    """Return the repr of a value that somebody gave, cut if it is long.

    It may be a number of any size.

    Args:
        value: Any value that YAML or JSON can hold.
        max_length: Characters that are kept.
    """
    try:
        text = repr(value)
    except ValueError:  # Python writes no whole number of more than 4,300 digits
        return f"a {type(value).__name__} too long to show"
    if len(text) > max_length:
        text = f"{masked_start(text, max_length)}… ({len(text):,} characters)"
    return line(text)


def listed(names: Iterable[object], max_names: int = 20) -> str:
    """Return the first of the columns or fields that a file has. Long names are cut."""
    names = list(names)
    first = ", ".join(_cut(str(name)) for name in names[:max_names])
    return first + (f" and {len(names) - max_names:,} more" if len(names) > max_names else "")


def _cut(name: str, max_length: int = 60) -> str:
    return line(name if len(name) <= max_length else f"{name[:max_length]}…")


def _joined(text: str) -> str:
    """Replace each surrogate pair by the character that it stands for."""
    return _PAIR.sub(_character_of, text)


def _character_of(pair: re.Match[str]) -> str:
    return pair[0].encode("utf-16", "surrogatepass").decode("utf-16")


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    if character in "\t\n\r":
        return repr(character)[1:-1]
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    if code < 0x10000:
        return f"\\u{code:04x}"
    return f"\\U{code:08x}"


def _json_escape(match: re.Match[str]) -> str:
    return "".join(f"\\u{unit:04x}" for unit in _units(match[0]))


def _units(character: str) -> list[int]:
    """Return the UTF-16 code units of a character."""
    data = character.encode("utf-16-be", "surrogatepass")
    return [int.from_bytes(data[start : start + 2], "big") for start in range(0, len(data), 2)]
