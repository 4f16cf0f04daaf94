"""Unicode repair: mojibake, control and invisible characters, line ends, normal form."""

from __future__ import annotations

import re
import unicodedata

import ftfy
from ftfy.badness import is_bad

from stages.clean.refusal import Rejection

_FIXES = ftfy.TextFixerConfig(
    unescape_html=False,
    fix_latin_ligatures=False,
    fix_character_width=False,
    uncurl_quotes=False,
    normalization=None,
    explain=False,
)
_LINE_ENDS = re.compile("[\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1b\x1f\x7f-\x9f]")
# Zero-width space, word joiner, byte order mark, soft hyphen, direction overrides and isolates.
# The joiners U+200C and U+200D stay, because Persian, Indic scripts and emoji need them.
_INVISIBLE = re.compile(
    "[\u00ad\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb]"
)
_SPACES = re.compile("[\u1680\u2000-\u200a\u202f\u205f\u3000]")
_COMBINING = "[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff]"
# Combining marks beyond the fourth on one character.
_STACKED = re.compile(f"({_COMBINING}{{4}}){_COMBINING}+")
_BLANKS = re.compile(r"\n{3,}")
_ADDRESS = re.compile(r"at 0x[0-9a-fA-F]{6,16}\b")

MAX_GARBLED_SHARE = 0.1  # lines that may stay garbled before a document is rejected


def repaired(text: str, normal_form: str = "NFC", normalise_addresses: bool = False) -> str:
    """Repair the characters of a text.

    The result has LF line ends, no control or invisible characters, plain spaces, and at most one
    blank line in a row. Indentation stays.

    Args:
        text: The text as it was decoded.
        normal_form: A Unicode normal form, or `none`.
        normalise_addresses: Whether memory addresses become `at 0x...`.

    Raises:
        Rejection: `mojibake`, if the text was decoded wrongly at its source and cannot be repaired.
    """
    text = text.replace("\r\n", "\n").replace("\xa0", " ")
    text = _LINE_ENDS.sub("\n", text)
    text = _repaired_unicode(text, normal_form)
    if normalise_addresses:
        text = _ADDRESS.sub("at 0x...", text)
    lines = [line.rstrip() for line in text.split("\n")]
    return _BLANKS.sub("\n\n", "\n".join(lines)).strip("\n")


def _repaired_unicode(text: str, normal_form: str) -> str:
    if text.isascii():
        return _CONTROLS.sub("", text)
    text = _CONTROLS.sub("", _without_mojibake(text))
    text = _INVISIBLE.sub("", text)
    text = _SPACES.sub(" ", text)
    text = _STACKED.sub(r"\1", text)
    # Surrogates cannot be written as UTF-8: they become U+FFFD here and are dropped.
    text = text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    text = text.replace("\ufffd", "")
    if normal_form == "none":
        return text
    return unicodedata.normalize(normal_form, text)  # type: ignore[arg-type]


def _without_mojibake(text: str) -> str:
    """Repair the lines that look decoded with the wrong character set, as far as ftfy can."""
    lines = text.split("\n")
    suspects = [number for number, line in enumerate(lines) if _looks_garbled(line)]
    for number in suspects:
        lines[number] = ftfy.fix_text(lines[number], _FIXES)
    garbled = sum(is_bad(lines[number]) for number in suspects)
    if garbled > MAX_GARBLED_SHARE * len(lines) + 1:
        detail = f"{garbled} of {len(lines)} lines are garbled beyond repair"
        raise Rejection("mojibake", detail, text.replace("\0", ""))
    return "\n".join(lines)


def _looks_garbled(line: str) -> bool:
    return not line.isascii() and is_bad(line)
