"""Replaces personal data and secrets with placeholders such as [EMAIL].

Policy: what identifies or reaches a person, or grants access, is replaced; what only looks like it
stays. Addresses in domains reserved for examples (RFC 2606), private and documentation IP
addresses, and numbers with wrong check digits are left alone. Names and postal addresses are not
recognised.

Patterns begin with a letter or a set, not with an assertion: only then does `re` skip ahead
quickly.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from ipaddress import AddressValueError, IPv4Address, IPv6Address

Validator = Callable[[str], bool]
Finder = Callable[[str], tuple[str, int]]


def redact(text: str, kinds: Sequence[str]) -> tuple[str, int]:
    """Replace personal data of the given kinds, in time linear in the length of the text.

    Args:
        text: Any text.
        kinds: Keys of FINDERS.

    Returns:
        The redacted text and the number of placeholders in it.
    """
    total = 0
    for kind, finders in FINDERS.items():
        if kind not in kinds:
            continue
        for finder in finders:
            text, found = finder(text)
            total += found
    return text, total


def _finder(
    sign: str,
    pattern: str,
    placeholder: str,
    is_valid: Validator | None = None,
    not_after: str = r"[\w.]",
) -> Finder:
    """Build a function that replaces the matches of a pattern.

    A pattern may match more groups of a number than belong to it ("… 1332 BIC"): the function
    replaces the longest valid beginning of the match.

    Args:
        sign: Text that every match contains. It is searched first, because that is fast.
        pattern: A regular expression.
        placeholder: The replacement.
        is_valid: Whether a candidate really is personal data.
        not_after: Pattern of a character that must not precede a match.
    """
    compiled = re.compile(pattern)
    unwanted = re.compile(not_after)

    def find(text: str) -> tuple[str, int]:
        if sign not in text:
            return text, 0
        pieces: list[str] = []
        copied = 0  # characters of `text` that are already in `pieces`
        found = 0
        match = compiled.search(text)
        while match:
            start = match.start()
            is_inside_word = start > 0 and unwanted.match(text[start - 1])
            accepted = "" if is_inside_word else _longest_valid(match[0], is_valid)
            if accepted:
                search_from = start + len(accepted)
                pieces += [text[copied:start], placeholder]
                copied = search_from
                found += 1
            else:
                # A valid number may begin with the second group of this match.
                first_group, _, _ = match[0].partition(" ")
                search_from = start + len(first_group)
            match = compiled.search(text, search_from)
        return "".join(pieces) + text[copied:], found

    return find


def _longest_valid(candidate: str, is_valid: Validator | None) -> str:
    """Return the longest valid beginning of `candidate`, in whole groups; "" if none is."""
    if is_valid is None:
        return candidate
    while candidate and not is_valid(candidate):
        candidate, _, _ = candidate.rpartition(" ")
    return candidate


_LOCAL_PART = re.compile(r"[\w.+%-]{1,64}\Z")
_MAX_LOCAL_CHARS = 64
_DOMAIN = re.compile(r"@((?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24})\b")
_RESERVED_DOMAIN = re.compile(
    r"(?:^|\.)(?:example\.(?:com|org|net)|(?:example|test|invalid|localhost|local))$", re.IGNORECASE
)


def _replace_emails(text: str) -> tuple[str, int]:
    """Replace e-mail addresses.

    The search goes from the @ backwards: every word could begin an address, but few characters can
    precede an @.
    """
    pieces: list[str] = []
    copied = 0  # characters of `text` that are already in `pieces`
    found = 0
    for match in _DOMAIN.finditer(text):
        at_sign = match.start()
        local = _LOCAL_PART.search(text[max(copied, at_sign - _MAX_LOCAL_CHARS) : at_sign])
        if local and not _RESERVED_DOMAIN.search(match[1]):
            pieces += [text[copied : at_sign - len(local[0])], "[EMAIL]"]
            copied = match.end()
            found += 1
    return "".join(pieces) + text[copied:], found


def _is_public_ip(candidate: str) -> bool:
    address_class = IPv6Address if ":" in candidate else IPv4Address
    try:
        return address_class(candidate).is_global
    except AddressValueError:
        return False


def _is_phone(candidate: str) -> bool:
    """E.164 allows 15 digits; fewer than 8 are hardly ever an international number."""
    digits = sum(map(str.isdigit, candidate))
    return 8 <= digits <= 15


_IBANS = """
    AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18
    DO28 EE20 EG29 ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23
    IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27
    MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24 RS22 RU33 SA24 SC31 SD18 SE24 SI19
    SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30
"""
_IBAN_LENGTHS = {entry[:2]: int(entry[2:]) for entry in _IBANS.split()}  # characters, by country


def _is_iban(candidate: str) -> bool:
    """Check the country's length and the check digits (ISO 13616).

    With country and check digits moved to the end and letters written as numbers, the remainder of
    the division by 97 must be 1.
    """
    compact = candidate.replace(" ", "")
    if len(compact) != _IBAN_LENGTHS.get(compact[:2]):
        return False
    rotated = compact[4:] + compact[:4]
    number = "".join(str(int(character, 36)) for character in rotated)
    return int(number) % 97 == 1


# Visa, Mastercard, American Express, Discover.
_CARD_ISSUERS = re.compile(r"4(?:\d{12}|\d{15})|5[1-5]\d{14}|3[47]\d{13}|6(?:011|5\d\d)\d{12}")


def _is_card(candidate: str) -> bool:
    """Check length and prefix of the issuer and the check digit of ISO/IEC 7812 (Luhn)."""
    digits = re.sub(r"\D", "", candidate)
    if not _CARD_ISSUERS.fullmatch(digits):
        return False
    total = 0
    for position, digit in enumerate(reversed(digits)):
        weighted = int(digit) * (1 + position % 2)
        total += weighted // 10 + weighted % 10
    return total % 10 == 0


# What a key begins with, and a pattern of what follows.
_KEYS = (
    (
        "-----BEGIN ",
        r"[A-Z ]{0,30}PRIVATE KEY-----[^-]{1,16000}-----END [A-Z ]{0,30}PRIVATE KEY-----",
    ),
    # AWS
    ("AKIA", r"[0-9A-Z]{16}\b"),
    ("ASIA", r"[0-9A-Z]{16}\b"),
    # GitHub, npm
    ("ghp_", r"[A-Za-z0-9]{36,255}\b"),
    ("gho_", r"[A-Za-z0-9]{36,255}\b"),
    ("ghu_", r"[A-Za-z0-9]{36,255}\b"),
    ("ghs_", r"[A-Za-z0-9]{36,255}\b"),
    ("ghr_", r"[A-Za-z0-9]{36,255}\b"),
    ("npm_", r"[A-Za-z0-9]{36,255}\b"),
    # GitHub, GitLab, PyPI
    ("github_pat_", r"[\w-]{20,255}"),
    ("glpat-", r"[\w-]{20,255}"),
    ("pypi-AgE", r"[\w-]{20,255}"),
    # Slack
    ("xoxb-", r"[A-Za-z0-9-]{10,200}"),
    ("xoxp-", r"[A-Za-z0-9-]{10,200}"),
    ("xoxa-", r"[A-Za-z0-9-]{10,200}"),
    ("xoxr-", r"[A-Za-z0-9-]{10,200}"),
    ("xoxs-", r"[A-Za-z0-9-]{10,200}"),
    # Stripe
    ("sk_live_", r"[A-Za-z0-9]{16,200}"),
    ("rk_live_", r"[A-Za-z0-9]{16,200}"),
    # Google
    ("AIza", r"[\w-]{35}"),
    # OpenAI, Anthropic
    ("sk-", r"[A-Za-z0-9_-]{32,200}"),
    # Hugging Face
    ("hf_", r"[A-Za-z0-9]{30,60}\b"),
    # JSON Web Token
    ("eyJ", r"[\w-]{8,2000}\.eyJ[\w-]{8,4000}\.[\w-]{8,2000}"),
)


def _key_finder(sign: str, rest: str) -> Finder:
    return _finder(sign, re.escape(sign) + rest, "[SECRET]", not_after=r"\w")


# user:password in a URL
_CREDENTIALS = _finder(
    "://",
    r"://[\w.%+-]{1,64}:[^\s/@:]{1,128}@(?=[\w.-])",
    "://[SECRET]@",
    not_after="[^a-z]",
)
_IBAN = _finder(
    "",
    r"[A-Z][A-Z]\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b",
    "[IBAN]",
    _is_iban,
)
_CARD = _finder(
    "",
    r"[3-6]\d{3}(?:[ -]?\d{2,6}){2,4}(?![\w-]|\.\d)",
    "[CARD]",
    _is_card,
    not_after=r"[\w.-]",
)
_IPV4 = _finder(
    ".",
    r"[0-9](?:\d{0,2}\.\d{1,3})(?:\.\d{1,3}){2}(?!\.?\w)",
    "[IP]",
    _is_public_ip,
)
_IPV6 = _finder(
    ":",
    r"[23][0-9a-fA-F]{3}:(?:[0-9a-fA-F]{0,4}:){1,6}[0-9a-fA-F]{0,4}(?![\w:])",
    "[IP]",
    _is_public_ip,
    not_after=r"[\w:.]",
)
# International notation, E.123.
_INTERNATIONAL_PHONE = _finder(
    "+",
    r"\+\d{1,3}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d{2,4}(?:[ .-]?\d{2,4}){1,4}(?![\w-]|\.\d)",
    "[PHONE]",
    _is_phone,
    not_after=r"[\w.+-]",
)
# North American notation, with and without parentheses.
_PHONE_IN_PARENTHESES = _finder("(", r"\(\d{3}\) ?\d{3}[ .-]\d{4}(?![\w-]|\.\d)", "[PHONE]")
_PHONE_WITH_SEPARATORS = _finder(
    "",
    r"[2-9]\d{2}([-.])[2-9]\d{2}\1\d{4}(?![\w-]|\.\d)",
    "[PHONE]",
    not_after=r"[\w.+-]",
)

# Secrets come first, because a key may contain what looks like a number.
FINDERS: dict[str, tuple[Finder, ...]] = {
    "secret": (*(_key_finder(sign, rest) for sign, rest in _KEYS), _CREDENTIALS),
    "email": (_replace_emails,),
    "iban": (_IBAN,),
    "card": (_CARD,),
    "ip": (_IPV4, _IPV6),
    "phone": (_INTERNATIONAL_PHONE, _PHONE_IN_PARENTHESES, _PHONE_WITH_SEPARATORS),
}
