"""How credentials look in one line of text, and how far they reach. See credentials.py.

An address is written in many ways: with a scheme or without, percent-encoded, with backslashes, or
with one slash because somebody took it for a path. A password may hold any character: quotes,
blanks, `/`, `#`, `?`, `@`. So it reaches to the last `@` that can belong to it, not to the first.
Rather too much is masked than too little.

The time is in proportion to the length of the line. Each pattern stops at a character with which
the next address begins, or after a fixed number of characters, and what depends on the rest of the
line is looked up.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from functools import cached_property

MASK = "***"
# Stands for a ";" that ends no word: in an address by itself it begins a parameter at most.
SEMICOLON = "\ue000"
MAX_QUOTED_CHARS = 4096

# A character as it is, or percent-encoded once or more often (%40, %2540), or as HTML and JSON
# may write it.
_PERCENT = r"%(?:25){0,3}"
_AT_OF_HTML = r"&(?:#0{0,9}64(?![0-9])|#x0{0,9}40(?![0-9a-f])|commat(?=;));?"
_AT = rf"(?:@|{_PERCENT}40|{_AT_OF_HTML}|\\u0040)"
_COLON = rf"(?::|{_PERCENT}3A|&colon;|\\u003a)"
_SLASH = rf"(?:/|{_PERCENT}2F)"
# JSON may write "\/", and people write "\\" for "//"; a repr doubles it.
_SEPARATOR = rf"(?:\\{{0,4}}{_SLASH}|\\{{1,4}}|{_PERCENT}5C)"
_SCHEME = r"(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]{1,40}"
_KNOWN_SCHEMES = r"(?<![A-Za-z0-9+.-])(?:https?|ftps?|sftp|s3a?|gs|wss?|ssh)"

# Where the user of an address may begin.
_START = re.compile(
    rf"(?P<scheme>{_SCHEME}{_COLON}{_SEPARATOR}{{2,8}})"
    rf"|(?P<path>{_SCHEME}{_COLON}{_SEPARATOR})"
    rf"|(?P<bare>{_KNOWN_SCHEMES}:)(?=[^\s:@/\\]{{1,100}}:)"
    rf"|(?P<slashes>{_SLASH}{{2,}}|\\{{2,}})",
    re.IGNORECASE,
)
_WITHOUT_SCHEME = re.compile(
    rf"(?:{_SLASH}{{2}}|\\\\)[\w.~+-]{{1,200}}{_COLON}[^\s/\[\]]{{1,200}}{_AT}[\w\[]",
    re.IGNORECASE,
)
_EACH_AT = re.compile(_AT, re.IGNORECASE)
EACH_AT_OF_HTML = re.compile(_AT_OF_HTML, re.IGNORECASE)
_EACH_BLANK = re.compile(r"\s")
# What ends a user: the colon in front of the password, or what cannot be in a user.
_EACH_END_OF_USER = re.compile(rf"(?P<colon>{_COLON})|{_AT}|{_SLASH}|[?#\s\[]", re.IGNORECASE)
_EACH_END_OF_WORD = re.compile(r"[\s'\"`<>,;]")
_PORT = re.compile(
    rf"\d{{1,5}}(?:$|[/?#\s'\"`,;)\]}}>|\\]|[:.](?:[\s'\"]|$)|{_SLASH})", re.IGNORECASE
)
_HOST = re.compile(r"(?:localhost|[\w-]+(?:\.[\w-]+)+)\Z")
# A token in front of the host, without a colon. A quote belongs to it unless it ends something.
_TOKEN = re.compile(
    rf"(?:{_AT}|(?!{_SLASH})[^/?#\s\\'\"`<>,;]|['\"`](?=[^\s,;:)\]}}>'\"`]))*", re.IGNORECASE
)

_NAMES = (
    r"(?:[\w.-]*(?:token|secret|passw(?:or)?d|passphrase|passcode|signature|credential"
    r"|authorization|access[_-]?key[_-]?id"
    r"|(?:api|access|account|auth|private|secret|shared|storage|subscription)[_-]?key)"
    r"|(?:[\w-]*[_-])?(?:pass|pw|pwd|pat|sas|sig|jwt|auth|credentials))"
)
_SEPARATED = rf"(?:[?&#;{SEMICOLON}]|\\u0026|{_PERCENT}(?:3F|26|23|3B))"
_EQUALS = r"(?:=|%(?:25){0,3}3D)"
_VALUE = (
    r"(?!\*\*\*)[^&#\s'\"<>]+"
    r"(?:['\"<>](?=[^\s,;:)\]}>&'\"])[^&#\s'\"<>]*)*"  # a quote in the middle of a value
    r"(?:[ \t][^&#?\n]{0,200}(?=&[\w.-]{1,50}=))?"  # a blank, if another parameter follows
)
_EACH_NAME = re.compile(_NAMES, re.IGNORECASE)
# A name with percent-encoded letters: servers decode it.
_LETTER = rf"{_PERCENT}(?:3[0-9]|[46][1-9A-F]|[57][0-9A]|2[DE]|5F)"
_ENCODED_NAME = re.compile(
    rf"({_SEPARATED})((?:[\w.-]|{_LETTER})++)(?={_EQUALS}(?!\*\*\*))", re.IGNORECASE
)
_EACH_LETTER = re.compile(_LETTER, re.IGNORECASE)
_PARAMETER = re.compile(rf"({_SEPARATED}{_NAMES}{_EQUALS}){_VALUE}", re.IGNORECASE)
_KEY_NAME = rf"(?:k|{_PERCENT}[46]B)(?:e|{_PERCENT}[46]5)(?:y|{_PERCENT}[57]9)"
_KEY = re.compile(rf"({_SEPARATED}{_KEY_NAME}{_EQUALS})(?!\*\*\*)[\w.~+/%-]{{20,}}", re.IGNORECASE)
# Libraries take the beginning of a password with a "/" for a port, and quote it.
_QUOTED_PORT = re.compile(
    r"(\bport\b[^'\"\n]{0,40}(?:\bas|:) ?)(?:'(?!\d*')[^\n]*'|\"(?!\d*\")[^\n]*\")", re.IGNORECASE
)


def masked_line(line: str) -> str:
    """Return a line with the credentials of every address in it replaced by MASK."""
    line = _without_users(line)
    if "%" in line:
        line = _ENCODED_NAME.sub(_with_plain_name, line)
    line = _PARAMETER.sub(rf"\g<1>{MASK}", line)
    line = _KEY.sub(rf"\g<1>{MASK}", line)
    return _QUOTED_PORT.sub(rf"\g<1>'{MASK}'", line)


def _with_plain_name(found: re.Match[str]) -> str:
    """Return separator and name of a parameter, the name decoded if it is one of a credential."""
    name = _EACH_LETTER.sub(lambda letter: chr(int(letter[0][-2:], 16)), found[2])
    return found[1] + (name if _EACH_NAME.fullmatch(name) else found[2])


def start_of_address(text: str) -> int | None:
    """Return where an address begins in a text; None if there is none.

    Without a scheme only `//user:password@host` is one: patterns and paths hold `//`, too.
    """
    for start in _START.finditer(text):
        if start["slashes"] is None or _WITHOUT_SCHEME.match(text, start.start()):
            return start.start()
    return None


def _without_users(line: str) -> str:
    looked_up = _Line(line)
    parts, position = [], 0
    for start in looked_up.starts():
        if start.start() < position:
            continue
        end = looked_up.end_of_credentials(start)
        if end is not None:
            parts += [line[position : start.end()], MASK, "@"]
            position = end
    return "".join([*parts, line[position:]])


class _Line:
    """A line, with the positions of what ends credentials. Most lines need none of them."""

    def __init__(self, text: str):
        self.text = text
        self._ends_of_at = [found.end() for found in _EACH_AT.finditer(text)]

    @cached_property
    def _blanks(self) -> list[int]:
        return [found.start() for found in _EACH_BLANK.finditer(self.text)]

    @cached_property
    def _ends_of_words(self) -> list[int]:
        return [found.start() for found in _EACH_END_OF_WORD.finditer(self.text)]

    @cached_property
    def _users(self) -> tuple[list[int], list[int | None]]:
        """Where users end, and where the password behind each begins, if there is one."""
        found = list(_EACH_END_OF_USER.finditer(self.text))
        passwords = [one.end() if one["colon"] else None for one in found]
        return [one.start() for one in found], passwords

    def starts(self) -> Iterator[re.Match[str]]:
        """Yield where an address may begin, as long as an `@` follows."""
        last_at = self._ends_of_at[-1] if self._ends_of_at else 0
        yield from _START.finditer(self.text, 0, last_at)

    def end_of_credentials(self, start: re.Match[str]) -> int | None:
        """Return the end of the `@` behind the credentials of an address; None if it has none."""
        begin = start.end()
        quoted_end = self._closing_quote(start)
        password = self._password(begin)
        if password is not None and _PORT.match(self.text, password):
            # A host with a dot in it is one, and its path may hold an "@".
            if start["slashes"] is None and not self._is_host(begin, password):
                found = self._last_at(begin, self._end_of_word(begin))
                if found is not None:
                    return found
        elif password is not None and not self._ends_clause(begin, password):
            # Without a scheme it may be something else, such as a comment, so blanks end it.
            may_hold_blanks = start["scheme"] is not None
            end = len(self.text) if may_hold_blanks else self._next_blank(begin)
            within_quotes = self._last_at(begin, min(end, quoted_end or end))
            found = within_quotes or self._last_at(begin, end)
            if found is not None:
                return found
        if start["path"] is not None or start["bare"] is not None:
            return None
        token = _TOKEN.match(self.text, begin, quoted_end or len(self.text))
        return self._last_at(begin, token.end()) if token else None

    def _password(self, begin: int) -> int | None:
        """Return where a password, or a port, begins behind a user and a colon."""
        ends, passwords = self._users
        index = bisect_right(ends, begin - 1)
        return passwords[index] if index < len(passwords) else None

    def _is_host(self, begin: int, password: int) -> bool:
        """Return whether what looks like a user is rather the name of a host."""
        ends, _ = self._users
        end = ends[bisect_right(ends, password - 1) - 1]
        return _HOST.match(self.text, begin, end) is not None

    def _ends_clause(self, begin: int, password: int) -> bool:
        """Return whether the colon rather ends a clause: `https://example.org: no answer`."""
        is_end = password in (len(self.text), self._next_blank(password))
        return is_end and self._is_host(begin, password)

    def _closing_quote(self, start: re.Match[str]) -> int | None:
        """Return where a quotation ends that begins right before the address."""
        before = self.text[max(0, start.start() - 2) : start.start()]
        quote = before[-1:]
        if not quote or quote not in "'\"`":
            return None
        is_escaped = before == f"\\{quote}"
        escape = r"\\" if is_escaped else r"(?<!\\)"
        closing = re.compile(rf"{escape}{quote}(?=$|[\s,;:)\]}}>.\\'\"`|])")
        found = closing.search(self.text, start.end(), start.end() + MAX_QUOTED_CHARS)
        return found.start() if found else None

    def _last_at(self, begin: int, end: int) -> int | None:
        index = bisect_right(self._ends_of_at, end) - 1
        is_there = index >= 0 and self._ends_of_at[index] > begin
        return self._ends_of_at[index] if is_there else None

    def _end_of_word(self, begin: int) -> int:
        """Return the end of what may be one address in a text. `&#64;` may end it."""
        index = bisect_right(self._ends_of_words, begin - 1)
        if index < len(self._ends_of_words):
            return self._ends_of_words[index] + 1
        return len(self.text)

    def _next_blank(self, begin: int) -> int:
        index = bisect_right(self._blanks, begin - 1)
        return self._blanks[index] if index < len(self._blanks) else len(self.text)
