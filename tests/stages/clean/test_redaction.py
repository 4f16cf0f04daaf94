"""Personal data is replaced; what only looks like it stays."""

from __future__ import annotations

import time

import pytest

from stages.clean.redaction import FINDERS, redact

ALL = tuple(FINDERS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("write to jane.doe+x@mail.co.uk now", "write to [EMAIL] now"),
        ("a@b.org, c@d.org", "[EMAIL], [EMAIL]"),
        ("host 8.8.8.8, and 2001:4860:4860::8888.", "host [IP], and [IP]."),
        (
            "call +49 30 901820 or (212) 555-0143 or 212-555-0143",
            "call [PHONE] or [PHONE] or [PHONE]",
        ),
        ("to DE89 3704 0044 0532 0130 00 today", "to [IBAN] today"),
        ("card 4111 1111 1111 1111 and 378282246310005", "card [CARD] and [CARD]"),
        ("ES91 2100 0418 4502 0005 1332 BIC CAIXESBB", "[IBAN] BIC CAIXESBB"),
        ("IBAN AT61 1904 3002 3457 3201 BIC", "IBAN [IBAN] BIC"),
        ("BE71 0961 2345 6769 EUR 20", "[IBAN] EUR 20"),
        ("BE71 0961 2345 6769 AT61 1904 3002 3457 3201", "[IBAN] [IBAN]"),
        ("4111 1111 1111 1111 12/25", "[CARD] 12/25"),
        ("4111 1111 1111 1111 123", "[CARD] 123"),
        ("378282246310005 12/25", "[CARD] 12/25"),
        ("5123 4111 1111 1111 1111", "5123 [CARD]"),
        ("4111 1111 1111 1111 4111 1111 1111 1111 1234", "[CARD] [CARD] 1234"),
        ("+44 20 7946 0958 2024 edition", "[PHONE] 2024 edition"),
        ("key AKIAIOSFODNN7EXAMPLE here", "key [SECRET] here"),
        ("token ghp_" + "a1B2" * 9, "token [SECRET]"),
        ("https://me:hunter2@host.org/x", "https://[SECRET]@host.org/x"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIB\n-----END RSA PRIVATE KEY-----", "[SECRET]"),
    ],
)
def test_personal_data_is_replaced(text: str, expected: str) -> None:
    redacted, count = redact(text, ALL)
    assert (redacted, count) == (expected, expected.count("["))


@pytest.mark.parametrize(
    "text",
    [
        "user@example.com and a@host.test",
        "10.0.0.1 127.0.0.1 192.168.1.1 203.0.113.7 version 1.2.3.4.5 ::1 fe80::1 2001:db8::1",
        "at 12:34:56 on 2024-01-02, pi is 3.14159265358979",
        "DE89 3704 0044 0532 0130 01",
        "DE86 3704 0044 0532 0130 and ZZ12 1904 3002 3457 3201",
        "4111 1111 1111 1112 and 12345678901234567890",
        "decorators such as @functools.cache and x @ y",
        "sk-learn and AKIA alone",
        "range(1000000000, 2000000000)",
        "Decimal('+35236450.6')",
    ],
)
def test_what_only_looks_like_it_stays(text: str) -> None:
    assert redact(text, ALL) == (text, 0)


def test_only_the_kinds_asked_for_are_replaced() -> None:
    assert redact("a@b.org 8.8.8.8", ["ip"]) == ("a@b.org [IP]", 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "piece",
    [
        "a",
        "1",
        "1 ",
        "a.",
        "@a.",
        "1.",
        "+1 ",
        "+44 20 79 ",
        "AA11 ",
        "AT61 ",
        "4111 ",
        "://a:",
        "2001:",
        "-----BEGIN PRIVATE KEY-----",
    ],
)
def test_time_is_linear_on_hostile_text(piece: str) -> None:
    text = piece * (300_000 // len(piece))
    begin = time.process_time()
    redact(text, ALL)
    assert time.process_time() - begin < 5
