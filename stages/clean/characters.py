"""Unicode repair: mojibake, control and invisible characters, line ends, normal form."""

from __future__ import annotations

import re
import unicodedata

import ftfy
from ftfy.badness import is_bad

from stages.clean.refusal import Refused

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
# zero-width space, word joiner, byte order mark, soft hyphen, direction overrides and isolates; joiners U+200C and U+200D stay,
# because Persian, Indic scripts and emoji need them
_INVISIBLE = re.compile(
    "[\u00ad\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb]"
)
_SPACES = re.compile("[\u1680\u2000-\u200a\u202f\u205f\u3000]")
_STACKED = re.compile(
    "([\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff]{4})[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff]+"
)
_BLANKS = re.compile(r"\n{3,}")
_ADDRESS = re.compile(r"at 0x[0-9a-fA-F]{6,16}\b")


def repaired(text: str, normal_form: str = "NFC", normalise_addresses: bool = False) -> str:
    """`text` with LF line ends, no control or invisible characters, plain spaces, and at most one blank line in a row.

    Indentation stays. Raises Refused `mojibake` if text that was decoded wrongly before it came here cannot be mended.
    """
    text = _LINE_ENDS.sub("\n", text.replace("\r\n", "\n").replace("\xa0", " "))
    if not text.isascii():
        text = _CONTROLS.sub("", _mended(text))
        text = _STACKED.sub(r"\1", _SPACES.sub(" ", _INVISIBLE.sub("", text)))
        text = (
            text.encode("utf-8", "surrogatepass").decode("utf-8", "replace").replace("\ufffd", "")
        )
        if normal_form != "none":
            text = unicodedata.normalize(normal_form, text)  # type: ignore[arg-type]
    else:
        text = _CONTROLS.sub("", text)
    if normalise_addresses:
        text = _ADDRESS.sub("at 0x...", text)
    return _BLANKS.sub("\n\n", "\n".join([line.rstrip() for line in text.split("\n")])).strip("\n")


def _mended(text: str) -> str:
    """Lines that look decoded with the wrong character set are decoded again, as far as that makes sense (ftfy)."""
    lines = text.split("\n")
    suspects = [number for number, line in enumerate(lines) if not line.isascii() and is_bad(line)]
    for number in suspects:
        lines[number] = ftfy.fix_text(lines[number], _FIXES)
    bad = sum(is_bad(lines[number]) for number in suspects)
    if bad > 0.1 * len(lines) + 1:
        raise Refused(
            "mojibake",
            f"{bad} of {len(lines)} lines are garbled beyond repair",
            text.replace("\0", ""),
        )
    return "\n".join(lines)
