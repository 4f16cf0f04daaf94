"""Bytes become the right text or are rejected; never the wrong text."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest
import test as python_tests

from stages.clean.characters import repaired
from stages.clean.decoding import decode
from stages.clean.refusal import Rejection

_SAMPLES = Path(python_tests.__path__[0]) / "cjkencodings"
ENCODINGS = sorted(path.stem for path in _SAMPLES.glob("*.txt") if not path.stem.endswith("-utf8"))
NEEDS_SAMPLES = pytest.mark.skipif(
    not ENCODINGS, reason="this Python was installed without test/cjkencodings"
)
ASCII_LOOKALIKES = {"hz"}  # undeclared, its bytes are plain ASCII text


def _sample(name: str) -> tuple[bytes, str]:
    """The bytes of a sample and the text that they encode."""
    body = (_SAMPLES / f"{name}.txt").read_bytes()
    text = (_SAMPLES / f"{name}-utf8.txt").read_text("utf-8")
    return body, text


@NEEDS_SAMPLES
@pytest.mark.parametrize("name", ENCODINGS)
def test_a_declared_east_asian_encoding_is_read(name: str) -> None:
    body, text = _sample(name)
    assert decode(body, name) == text


@NEEDS_SAMPLES
@pytest.mark.parametrize("name", sorted(set(ENCODINGS) - ASCII_LOOKALIKES))
@pytest.mark.parametrize("declared", [None, "utf-8", "windows-1252"])
def test_an_undeclared_or_wrongly_declared_encoding_is_read_right_or_rejected(
    name: str, declared: str | None
) -> None:
    body, text = _sample(name)
    try:
        decoded = decode(body, declared)
    except Rejection as rejection:
        decoded = rejection.reason
    assert decoded in (text, "mojibake", "undecodable", "binary")


@pytest.mark.parametrize("name", ["shift_jis", "euc_jp", "gb18030", "big5"])
@NEEDS_SAMPLES
def test_the_common_ones_are_detected_when_declared_as_utf_8(name: str) -> None:
    body, text = _sample(name)
    assert decode(body, "utf-8") == text


@pytest.mark.parametrize(
    "declared", ["iso-8859-1", "windows-1252", "us-ascii", None, "no-such-charset"]
)
def test_utf_8_is_read_whatever_is_declared(declared: str | None) -> None:
    assert decode("Überfluß – “naïve” café".encode(), declared) == "Überfluß – “naïve” café"


def test_windows_1252_is_read_where_latin_1_is_declared() -> None:
    assert decode("“quoted” – naïve".encode("cp1252"), "iso-8859-1") == "“quoted” – naïve"


def test_a_byte_order_mark_beats_the_declaration() -> None:
    text = "Grüße aus 東京"
    assert decode(codecs.BOM_UTF16_LE + text.encode("utf-16-le"), "utf-8") == text
    assert decode(codecs.BOM_UTF16_BE + text.encode("utf-16-be"), "utf-8") == text
    assert decode(codecs.BOM_UTF8 + text.encode(), "windows-1252") == text


def test_meta_charset_counts_where_the_server_declares_nothing() -> None:
    page = '<html><head><meta charset="windows-1251"></head><body>Привет, мир</body>'
    assert "Привет, мир" in decode(page.encode("cp1251"))


def test_the_servers_declaration_beats_meta() -> None:
    body = '<meta charset="iso-8859-5"><body>Привет, мир, как дела'.encode("cp1251")
    assert "Привет, мир" in decode(body, "windows-1251")


@pytest.mark.parametrize(
    "body", [b"GIF89a\x00\x01\x00", bytes(range(256)) * 4, b"\x01\x02\x03\x04\x05 text \x06\x07"]
)
def test_binary_is_rejected(body: bytes) -> None:
    with pytest.raises(Rejection, match="binary"):
        decode(body, "utf-8")


def test_a_few_broken_bytes_do_not_reject_the_document() -> None:
    assert decode("ä".encode() * 3000 + b"\xff", "utf-8") == "ä" * 3000


def test_text_that_was_garbled_at_its_source_is_repaired() -> None:
    garbled = "\n".join(["The café is open — come in.".encode().decode("cp1252")] * 5)
    assert repaired(garbled) == "\n".join(["The café is open — come in."] * 5)


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("a\r\nb\rc\u2028d\x85e", "a\nb\nc\nd\ne"),
        ("zero\u200bwidth \ufeffmark so\u00adft", "zerowidth mark soft"),
        ("bell\x07 \x1b[1mbold\x1b[0m", "bell [1mbold[0m"),
        ("wide\u3000and\xa0hard", "wide and hard"),
        ("e\u0301", "é"),
        ("lone \ud800 surrogate", "lone  surrogate"),
        ("z" + "\u0337" * 40 + "algo", "z" + "\u0337" * 4 + "algo"),
        ("a \n\n\n\n\nb", "a\n\nb"),
        ("نمی\u200cخواهم", "نمی\u200cخواهم"),
        ("    indented", "    indented"),
    ],
)
def test_characters_are_normalised(raw: str, clean: str) -> None:
    assert repaired(raw) == clean


def test_addresses_are_written_alike_on_request_only() -> None:
    text = "<function f at 0x7f3a5c0d1e50>"
    assert repaired(text, normalise_addresses=True) == "<function f at 0x...>"
    assert repaired(text) == text
