"""C4's rules on lines and phrases (Raffel et al. 2020, arXiv 1910.10683, section 2.2)."""

from __future__ import annotations

from stages.clean.config import C4
from stages.clean.refusal import Rejection
from stages.text.sentences import ELLIPSES, TERMINAL
from stages.text.words import Words, splitter

_words = splitter(Words.BY_SCRIPT)

_BOILERPLATE = (
    "javascript",
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
)


def kept_lines(text: str, c4: C4) -> tuple[str, int]:
    """Remove the lines that C4's rules remove.

    Returns:
        The remaining text and the number of lines removed. Blank lines stay and do not count.

    Raises:
        Rejection: `c4_curly_brackets`, `c4_lorem_ipsum` or `c4_no_lines`.
    """
    if c4.refuse_curly_brackets and "{" in text:
        raise Rejection("c4_curly_brackets", f"{text.count('{')} curly brackets > 0", text)
    if c4.refuse_lorem_ipsum and "lorem ipsum" in text.lower():
        raise Rejection("c4_lorem_ipsum", "the text has the words lorem ipsum", text)
    lines = text.split("\n")
    kept = [line for line in lines if _keeps(line.strip(), c4)]
    removed = len(lines) - len(kept)
    remaining = "\n".join(kept).strip("\n")
    if not remaining.strip():
        raise Rejection("c4_no_lines", f"all {removed} lines were taken out", text)
    return remaining, removed


def _keeps(line: str, c4: C4) -> bool:
    """Return whether the rules keep a line, given without surrounding white space."""
    if not line:
        return True
    if c4.terminal_punctuation and not _ends_a_sentence(line):
        return False
    if c4.min_words_per_line and len(_words(line)) < c4.min_words_per_line:
        return False
    return not (c4.javascript_lines and _is_boilerplate(line))


def _ends_a_sentence(line: str) -> bool:
    return line.endswith(TERMINAL) and not line.endswith(ELLIPSES)


def _is_boilerplate(line: str) -> bool:
    lower = line.lower()
    return any(phrase in lower for phrase in _BOILERPLATE)
