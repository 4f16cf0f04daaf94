"""Personal data and secrets replaced by placeholders such as [EMAIL].

Policy: what identifies or reaches a person, or opens a door, goes; what only looks like it stays. Addresses of domains reserved
for examples (RFC 2606), private and documentation IP addresses, and numbers whose check digits are wrong are left alone.
Names and postal addresses are not recognised.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from ipaddress import AddressValueError, IPv4Address, IPv6Address

Valid = Callable[[str], bool]
Finder = Callable[[str], tuple[str, int]]


def redact(text: str, kinds: Sequence[str]) -> tuple[str, int]:
    """`text` with placeholders, and how many were put in. Linear in the length of the text."""
    total = 0
    for kind, finders in FINDERS.items():  # secrets first: a key may hold what looks like a number
        if kind in kinds:
            for finder in finders:
                text, found = finder(text)
                total += found
    return text, total


def _finder(
    sign: str, pattern: str, placeholder: str, valid: Valid | None = None, not_after: str = r"[\w.]"
) -> Finder:
    """sign: without it in the text there is no match. not_after: what may not stand before a match.

    A pattern may take more groups of a number than belong to it ("… 1332 BIC"): what is looked for is the longest valid beginning.
    Patterns begin with a letter or a set, not with an assertion: only then does `re` skip ahead quickly.
    """
    compiled, unwanted = re.compile(pattern), re.compile(not_after)

    def find(text: str) -> tuple[str, int]:
        if sign not in text:
            return text, 0
        pieces, done, at, found = [], 0, 0, 0
        while match := compiled.search(text, at):
            start, shown = match.start(), match[0]
            if start and unwanted.match(text[start - 1]):
                shown = ""
            while shown and valid and not valid(shown):
                shown = shown.rpartition(" ")[0]
            if shown:
                pieces += [text[done:start], placeholder]
                done = at = start + len(shown)
                found += 1
            else:
                at = start + len(
                    match[0].partition(" ")[0]
                )  # what is looked for may begin with the second group
        return "".join(pieces) + text[done:], found

    return find


_LOCAL_PART = re.compile(r"[\w.+%-]{1,64}\Z")
_DOMAIN = re.compile(r"@((?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24})\b")
_RESERVED = re.compile(
    r"(?:^|\.)(?:example\.(?:com|org|net)|(?:example|test|invalid|localhost|local))$", re.IGNORECASE
)


def _emails(text: str) -> tuple[str, int]:
    """Looked for from the @ backwards: every word could begin an address, few characters can end its first half."""
    pieces, done, found = [], 0, 0
    for match in _DOMAIN.finditer(text):
        local = _LOCAL_PART.search(text[max(done, match.start() - 64) : match.start()])
        if local and not _RESERVED.search(match[1]):
            pieces += [text[done : match.start() - len(local[0])], "[EMAIL]"]
            done, found = match.end(), found + 1
    return "".join(pieces) + text[done:], found


def _is_public_ip(shown: str) -> bool:
    try:
        return (IPv6Address if ":" in shown else IPv4Address)(shown).is_global
    except AddressValueError:
        return False


def _is_phone(shown: str) -> bool:
    """E.164 allows 15 digits; fewer than 8 are hardly ever an international number."""
    return 8 <= sum(map(str.isdigit, shown)) <= 15


_IBANS = """
    AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 EE20 EG29 ES24 FI18 FK18 FO18
    FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27
    MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24 RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27
    SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30
"""
_IBAN_LENGTHS = {entry[:2]: int(entry[2:]) for entry in _IBANS.split()}  # characters, by country


def _is_iban(shown: str) -> bool:
    """ISO 13616: the length that its country has; letters as numbers, country and check digits last, remainder 1 by 97."""
    compact = shown.replace(" ", "")
    if len(compact) != _IBAN_LENGTHS.get(compact[:2]):
        return False
    return (
        int("".join(str(int(character, 36)) for character in compact[4:] + compact[:4])) % 97 == 1
    )


_CARD_ISSUERS = re.compile(r"4(?:\d{12}|\d{15})|5[1-5]\d{14}|3[47]\d{13}|6(?:011|5\d\d)\d{12}")


def _is_card(shown: str) -> bool:
    """A length and prefix that an issuer uses, and the check digit of ISO/IEC 7812 (Luhn)."""
    digits = re.sub(r"\D", "", shown)
    doubled = (int(d) * (1 + i % 2) for i, d in enumerate(reversed(digits)))
    return (
        _CARD_ISSUERS.fullmatch(digits) is not None
        and sum(d // 10 + d % 10 for d in doubled) % 10 == 0
    )


def _key(sign: str, rest: str) -> Finder:
    return _finder(sign, re.escape(sign) + rest, "[SECRET]", not_after=r"\w")


FINDERS: dict[str, tuple[Finder, ...]] = {
    "secret": (
        _key(
            "-----BEGIN ",
            r"[A-Z ]{0,30}PRIVATE KEY-----[^-]{1,16000}-----END [A-Z ]{0,30}PRIVATE KEY-----",
        ),
        *(_key(sign, r"[0-9A-Z]{16}\b") for sign in ("AKIA", "ASIA")),  # AWS
        *(
            _key(sign, r"[A-Za-z0-9]{36,255}\b")
            for sign in ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "npm_")
        ),  # GitHub, npm
        *(
            _key(sign, r"[\w-]{20,255}") for sign in ("github_pat_", "glpat-", "pypi-AgE")
        ),  # GitHub, GitLab, PyPI
        *(
            _key(sign, r"[A-Za-z0-9-]{10,200}")
            for sign in ("xoxb-", "xoxp-", "xoxa-", "xoxr-", "xoxs-")
        ),  # Slack
        *(_key(sign, r"[A-Za-z0-9]{16,200}") for sign in ("sk_live_", "rk_live_")),  # Stripe
        _key("AIza", r"[\w-]{35}"),  # Google
        _key("sk-", r"[A-Za-z0-9_-]{32,200}"),  # OpenAI, Anthropic
        _key("hf_", r"[A-Za-z0-9]{30,60}\b"),  # Hugging Face
        _key("eyJ", r"[\w-]{8,2000}\.eyJ[\w-]{8,4000}\.[\w-]{8,2000}"),  # JSON web token
        _finder(
            "://",
            r"://[\w.%+-]{1,64}:[^\s/@:]{1,128}@(?=[\w.-])",
            "://[SECRET]@",
            not_after="[^a-z]",
        ),  # user:password
    ),
    "email": (_emails,),
    "iban": (
        _finder(
            "", r"[A-Z][A-Z]\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b", "[IBAN]", _is_iban
        ),
    ),
    "card": (
        _finder(
            "", r"[3-6]\d{3}(?:[ -]?\d{2,6}){2,4}(?![\w-]|\.\d)", "[CARD]", _is_card, r"[\w.-]"
        ),
    ),
    "ip": (
        _finder(".", r"[0-9](?:\d{0,2}\.\d{1,3})(?:\.\d{1,3}){2}(?!\.?\w)", "[IP]", _is_public_ip),
        _finder(
            ":",
            r"[23][0-9a-fA-F]{3}:(?:[0-9a-fA-F]{0,4}:){1,6}[0-9a-fA-F]{0,4}(?![\w:])",
            "[IP]",
            _is_public_ip,
            r"[\w:.]",
        ),
    ),
    "phone": (
        _finder(
            "+",
            r"\+\d{1,3}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d{2,4}(?:[ .-]?\d{2,4}){1,4}(?![\w-]|\.\d)",
            "[PHONE]",
            _is_phone,
            r"[\w.+-]",
        ),  # international notation, E.123
        _finder("(", r"\(\d{3}\) ?\d{3}[ .-]\d{4}(?![\w-]|\.\d)", "[PHONE]"),  # North American
        _finder(
            "", r"[2-9]\d{2}([-.])[2-9]\d{2}\1\d{4}(?![\w-]|\.\d)", "[PHONE]", not_after=r"[\w.+-]"
        ),
    ),
}
