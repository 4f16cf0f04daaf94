"""Text that others wrote, made safe to print: what would steer a terminal, or turn what a reader sees, is shown and not sent.

Pages, file names, templates, vocabularies and manifests can hold any character. A terminal obeys some of them: ESC and the C1
controls begin sequences that set titles, write to the clipboard or hide lines, a carriage return overwrites a line, and Unicode's
bidirectional controls show a text in another order than it has. All of them are written as Python writes them: \\x1b, \\u202e.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

_C0, _C1 = "\x00-\x08\x0b-\x1f", "\x7f-\x9f"  # but tab and newline; DEL goes with C1
_DIRECTION = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_UNSEEN = (
    "\u180e\u200b\u2028\u2029\u2060-\u2065\u206a-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"
)
_HALVES = "\ud800-\udfff"  # of a character beyond 16 bits: one alone cannot be written as UTF-8
_UNSAFE = f"{_C0}{_C1}{_DIRECTION}{_UNSEEN}{_HALVES}"

_IN_TEXT = re.compile(f"[{_UNSAFE}]")
_IN_A_LINE = re.compile(f"[\t\n{_UNSAFE}]")
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_UNFINISHED = re.compile(r"[\r\ud800-\udbff]\Z")


def shown(text: str) -> str:
    """`text` for a terminal, a log or an error: lines and tabs stay, every other control is shown."""
    return _IN_TEXT.sub(_escape, _joined(text).replace("\r\n", "\n"))


def line(text: str) -> str:
    """The same as one line, for the cell of a table or the name of a file."""
    return _IN_A_LINE.sub(_escape, _joined(text))


def pieces(stream: Iterable[str]) -> Iterator[str]:
    """`shown` for text that comes piece by piece: what two pieces hold between them is seen as one."""
    kept = ""
    for piece in stream:
        text = kept + piece
        unfinished = _UNFINISHED.search(text)
        kept = unfinished[0] if unfinished else ""
        if ready := text.removesuffix(kept):
            yield shown(ready)
    if kept:
        yield shown(kept)


def json_text(text: str) -> str:
    """JSON that was made with ensure_ascii=False, safe to print, and the same value: characters as JSON's own escapes."""
    return _IN_TEXT.sub(lambda match: "".join(f"\\u{unit:04x}" for unit in _units(match[0])), text)


def brief(value: object, most: int = 120) -> str:
    """The repr of a value that somebody gave, cut where it grows long. Takes numbers of any length."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no whole number of more than 4,300 digits
        return f"a {type(value).__name__} too long to show"
    return line(text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters)")


def listed(names: Iterable[object], most: int = 20) -> str:
    """The names of columns or fields that a file has, the first of many, each cut where it grows long."""
    names = list(names)
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(_cut(str(name)) for name in names[:most]) + more


def _cut(name: str, most: int = 60) -> str:
    return line(name if len(name) <= most else f"{name[:most]}…")


def _joined(text: str) -> str:
    """Halves that belong together as the character that they are."""
    return _PAIR.sub(
        lambda match: match[0].encode("utf-16", "surrogatepass").decode("utf-16"), text
    )


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    if character in "\t\n\r":
        return repr(character)[1:-1]
    code = ord(character)
    return (
        f"\\x{code:02x}"
        if code < 0x100
        else f"\\u{code:04x}"
        if code < 0x10000
        else f"\\U{code:08x}"
    )


def _units(character: str) -> list[int]:
    code = character.encode("utf-16-be", "surrogatepass")
    return [int.from_bytes(code[place : place + 2], "big") for place in range(0, len(code), 2)]
