"""Bytes to Unicode: byte order mark, then the declared character set, then <meta>, then detection; never a silent guess.

A declaration is believed only if the bytes agree with it. Sources: WHATWG Encoding Standard (a byte order mark beats every
declaration; labels and their aliases) and HTML Standard, section 13.2.3 (prescan for <meta charset>).
"""

from __future__ import annotations

import codecs
import re

from ftfy.badness import badness
from resiliparse.parse.encoding import detect_encoding, map_encoding_to_html5

from data_contracts.foreign_text import brief, listed
from stages.clean.refusal import Refused

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_META = re.compile(
    rb"""<meta[^>]{0,256}?charset\s*=\s*["']?\s*([A-Za-z0-9_.:-]{2,40})""", re.IGNORECASE
)
_XML = re.compile(rb"""^\s*<\?xml[^>]{0,128}?encoding\s*=\s*["']([A-Za-z0-9_.:-]{2,40})""")
_HEAD = 4096  # bytes prescanned for <meta>; the standard asks for 1,024

_CONTROLS = bytes(
    {*range(32), 127} - {*b"\t\n\x0c\r\x0e\x0f\x1b"}
)  # shifts and escapes belong to ISO 2022

MAX_CONTROL_SHARE = 0.02  # control characters among the bytes of a text
MAX_BAD_SHARE = 0.001  # characters that may be undecodable before a document is refused
MAX_BADNESS = (
    0.05  # unlikely character pairs (as ftfy counts them) per byte that UTF-8 spends beyond ASCII
)


def decode(body: bytes, declared: str | None = None) -> str:
    """The text of `body`.

    Raises Refused: `binary` (NUL bytes, or mostly control characters), `undecodable` (no character set fits) or
    `mojibake` (one fits, but what comes out is not text).
    """
    for mark, name in _BOMS:
        if body.startswith(mark):
            return _strictly_or_refused(body, name)
    names = [name for name in (declared, *_declared_inside(body[:_HEAD])) if name]
    if 0 in body and not any("16" in name or "32" in name for name in names):
        raise Refused("binary", f"{body.count(0)} NUL bytes among {len(body)}")
    _refuse_controls(body, names)
    escaped = (
        b"\x1b$" in body or b"\x0e" in body
    )  # ISO 2022 shifts: seven-bit bytes that are not ASCII text
    if (
        not escaped
        and not _names_seven_bit(names)
        and (text := _strictly(body, "utf-8")) is not None
    ):
        return _text_or_refused(
            text, "utf-8"
        )  # bytes beyond ASCII that are valid UTF-8 are hardly ever anything else
    tried = []
    for name in [
        *names,
        *(("iso2022_kr", "iso2022_jp_ext") if escaped else ()),
        detect_encoding(body),
    ]:
        text = _strictly(body, name)
        tried.append(name)
        if text is not None and _plausible(text):
            return _text_or_refused(text, name)
    text = body.decode("utf-8", "replace")
    if (bad := text.count("\ufffd")) <= MAX_BAD_SHARE * len(text) and not escaped:
        return _text_or_refused(text.replace("\ufffd", ""), "utf-8")
    if any(_strictly(body, name) is not None for name in tried):
        raise Refused("mojibake", f"bytes decode as {listed(tried)} but give no plausible text")
    raise Refused(
        "undecodable", f"{bad} of {len(text)} characters fit none of utf-8, {listed(tried)}"
    )


def _declared_inside(head: bytes) -> list[str]:
    found = _META.search(head) or _XML.search(head)
    return [found[1].decode("ascii")] if found else []


def _names_seven_bit(names: list[str]) -> bool:
    return any(
        name.lower().startswith(
            ("hz", "iso-2022", "iso2022", "utf-7", "utf7", "utf-16", "utf16", "utf-32", "utf32")
        )
        for name in names
    )


def _strictly(body: bytes, name: str) -> str | None:
    for codec in _codecs_of(name):
        try:
            return body.decode(codec)
        except (UnicodeError, LookupError):  # idna raises the plain one
            continue
    return None


def _codecs_of(name: str) -> list[str]:
    """Python codecs for a label: itself, then what browsers take it for (iso-8859-1 is windows-1252, gb2312 is gbk …)."""
    names = [name]
    try:
        if not codecs.lookup(name)._is_text_encoding:  # type: ignore[attr-defined]  # rot13, zlib and the like
            return []
        if codecs.lookup(name).name in ("iso8859-1", "ascii"):
            names = ["cp1252", name]
    except LookupError:
        pass
    except ValueError:  # a name with a NUL
        return []
    standard = map_encoding_to_html5(name, fallback_utf8=False)
    return [*names, *([standard] if standard else [])]


def _strictly_or_refused(body: bytes, name: str) -> str:
    text = _strictly(body, name)
    if text is None:
        raise Refused("undecodable", f"begins with the byte order mark of {name} but is not {name}")
    return _text_or_refused(text, name)


def _text_or_refused(text: str, name: str) -> str:
    if "\0" in text:
        raise Refused(
            "binary", f"{text.count(chr(0))} NUL characters after decoding as {brief(name)}"
        )
    return text


def _refuse_controls(body: bytes, names: list[str]) -> None:
    controls = len(body) - len(body.translate(None, _CONTROLS))
    if controls > MAX_CONTROL_SHARE * len(body) and not _names_seven_bit(names):
        raise Refused("binary", f"{controls} control characters among {len(body)} bytes")


def _plausible(text: str) -> bool:
    sample = text[:100_000]
    if "\x1b$" in sample or "\x0e" in sample:
        return False
    odd = badness(sample) + sum(sample.count(c) for c in "\x80\x81\x8d\x8f\x90\x9d\ufffd")
    return odd <= max(MAX_BADNESS * (len(sample.encode("utf-8", "surrogatepass")) - len(sample)), 1)
