"""Bytes to Unicode, without ever guessing silently.

The order is: byte order mark, declared character set, <meta> element, detection. A declaration is
believed only if the bytes agree with it.

Sources: the WHATWG Encoding Standard (a byte order mark beats every declaration; labels and their
aliases) and the HTML Standard, section 13.2.3 (prescan for <meta charset>).
"""

from __future__ import annotations

import codecs
import re

from ftfy.badness import badness
from resiliparse.parse.encoding import detect_encoding, map_encoding_to_html5

from data_contracts.foreign_text import brief, listed
from stages.clean.refusal import Rejection

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_META = re.compile(
    rb"""<meta[^>]{0,256}?charset\s*=\s*["']?\s*([A-Za-z0-9_.:-]{2,40})""", re.IGNORECASE
)
_XML = re.compile(rb"""^\s*<\?xml[^>]{0,128}?encoding\s*=\s*["']([A-Za-z0-9_.:-]{2,40})""")
_HEAD_BYTES = 4096  # prescanned for <meta>; the standard asks for 1,024

# Control characters that have no business in text. Shifts and escapes belong to ISO 2022.
_CONTROLS = bytes({*range(32), 127} - {*b"\t\n\x0c\r\x0e\x0f\x1b"})
# Character sets whose bytes look like ASCII, or contain NUL and control bytes.
_SEVEN_BIT_OR_WIDE = (
    "hz",
    "iso-2022",
    "iso2022",
    "utf-7",
    "utf7",
    "utf-16",
    "utf16",
    "utf-32",
    "utf32",
)
_ISO_2022 = ("iso2022_kr", "iso2022_jp_ext")
# Left behind when bytes were decoded with the wrong single-byte character set.
_UNLIKELY = "\x80\x81\x8d\x8f\x90\x9d\ufffd"
_PLAUSIBILITY_CHARS = 100_000  # at the beginning of a text, to judge it by

MAX_CONTROL_SHARE = 0.02  # control characters among the bytes of a text
MAX_BAD_SHARE = 0.001  # undecodable characters before a document is rejected
# Unlikely character pairs, as ftfy counts them, per byte that UTF-8 spends beyond ASCII.
MAX_BADNESS = 0.05


def decode(body: bytes, declared: str | None = None) -> str:
    """Decode the body of a page.

    Args:
        body: The bytes as they were fetched.
        declared: The character set that the server declared.

    Raises:
        Rejection: `binary` (NUL bytes, or mostly control characters), `undecodable` (no character
            set fits) or `mojibake` (one fits, but the result is not text).
    """
    for mark, label in _BOMS:
        if body.startswith(mark):
            return _decoded_after_mark(body, label)
    labels = _declared_labels(body, declared)
    _reject_binary(body, labels)
    has_escapes = b"\x1b$" in body or b"\x0e" in body  # the shifts of ISO 2022
    if not has_escapes and not _has_seven_bit_label(labels):
        # Bytes beyond ASCII that are valid UTF-8 are hardly ever anything else.
        text = _decoded(body, "utf-8")
        if text is not None:
            return _without_nul(text, "utf-8")
    if has_escapes:
        labels += _ISO_2022
    labels.append(detect_encoding(body) or "utf-8")
    for label in labels:
        text = _decoded(body, label)
        if text is not None and _is_plausible(text):
            return _without_nul(text, label)
    return _decoded_with_losses(body, labels, has_escapes)


def _decoded_with_losses(body: bytes, tried: list[str], has_escapes: bool) -> str:
    """Decode UTF-8 without a few broken bytes, as the last resort."""
    text = body.decode("utf-8", "replace")
    bad = text.count("\ufffd")
    if bad <= MAX_BAD_SHARE * len(text) and not has_escapes:
        return _without_nul(text.replace("\ufffd", ""), "utf-8")
    if any(_decoded(body, label) is not None for label in tried):
        raise Rejection("mojibake", f"bytes decode as {listed(tried)} but give no plausible text")
    detail = f"{bad} of {len(text)} characters fit none of utf-8, {listed(tried)}"
    raise Rejection("undecodable", detail)


def _declared_labels(body: bytes, declared: str | None) -> list[str]:
    """Return the labels of character sets: the server's first, then that of the document itself."""
    labels = [declared] if declared else []
    head = body[:_HEAD_BYTES]
    inside = _META.search(head) or _XML.search(head)
    if inside:
        labels.append(inside[1].decode("ascii"))
    return labels


def _reject_binary(body: bytes, labels: list[str]) -> None:
    is_wide = any("16" in label or "32" in label for label in labels)
    if 0 in body and not is_wide:
        raise Rejection("binary", f"{body.count(0)} NUL bytes among {len(body)}")
    controls = len(body) - len(body.translate(None, _CONTROLS))
    if controls > MAX_CONTROL_SHARE * len(body) and not _has_seven_bit_label(labels):
        raise Rejection("binary", f"{controls} control characters among {len(body)} bytes")


def _has_seven_bit_label(labels: list[str]) -> bool:
    return any(label.lower().startswith(_SEVEN_BIT_OR_WIDE) for label in labels)


def _decoded(body: bytes, label: str) -> str | None:
    """Return `body` in the character set of `label`, or None if a single byte does not fit."""
    for codec in _codecs_of(label):
        try:
            return body.decode(codec)
        except (UnicodeError, LookupError):  # idna raises the plain UnicodeError
            continue
    return None


def _codecs_of(label: str) -> list[str]:
    """Python codecs for a label: its own, then the one that browsers use for it.

    Browsers read iso-8859-1 as windows-1252 and gb2312 as gbk, for example.
    """
    names = [label]
    try:
        codec = codecs.lookup(label)
    except LookupError:
        pass
    except ValueError:  # a label with a NUL
        return []
    else:
        if not codec._is_text_encoding:  # type: ignore[attr-defined]  # rot13, zlib and the like
            return []
        if codec.name in ("iso8859-1", "ascii"):
            names = ["cp1252", label]
    standard = map_encoding_to_html5(label, fallback_utf8=False)
    if standard:
        names.append(standard)
    return names


def _decoded_after_mark(body: bytes, label: str) -> str:
    text = _decoded(body, label)
    if text is None:
        detail = f"begins with the byte order mark of {label} but is not {label}"
        raise Rejection("undecodable", detail)
    return _without_nul(text, label)


def _without_nul(text: str, label: str) -> str:
    """Return the text; reject one that contains NUL characters."""
    if "\0" in text:
        nuls = text.count("\0")
        raise Rejection("binary", f"{nuls} NUL characters after decoding as {brief(label)}")
    return text


def _is_plausible(text: str) -> bool:
    """Return whether a text begins like text rather than like wrongly decoded bytes."""
    sample = text[:_PLAUSIBILITY_CHARS]
    if "\x1b$" in sample or "\x0e" in sample:
        return False
    unlikely = badness(sample) + sum(sample.count(character) for character in _UNLIKELY)
    beyond_ascii = len(sample.encode("utf-8", "surrogatepass")) - len(sample)
    return unlikely <= max(MAX_BADNESS * beyond_ascii, 1)
