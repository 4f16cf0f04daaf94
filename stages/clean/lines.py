"""C4's rules on lines and on what a text says (Raffel et al. 2020, arXiv 1910.10683, section 2.2)."""

from __future__ import annotations

from stages.clean.config import C4
from stages.clean.refusal import Refused
from stages.clean.signals import TERMINAL, words_of

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
    """`text` without the lines that C4 takes out, and how many they were. Blank lines stay and do not count.

    Raises Refused `c4_curly_brackets`, `c4_lorem_ipsum` or `c4_no_lines`.
    """
    if c4.refuse_curly_brackets and "{" in text:
        raise Refused("c4_curly_brackets", f"{text.count('{')} curly brackets > 0", text)
    if c4.refuse_lorem_ipsum and "lorem ipsum" in text.lower():
        raise Refused("c4_lorem_ipsum", "the text has the words lorem ipsum", text)
    lines = text.split("\n")
    kept = [line for line in lines if not line.strip() or _keeps(line.strip(), c4)]
    removed = len(lines) - len(kept)
    left = "\n".join(kept).strip("\n")
    if not left.strip():
        raise Refused("c4_no_lines", f"all {removed} lines were taken out", text)
    return left, removed


def _keeps(line: str, c4: C4) -> bool:
    if c4.terminal_punctuation and (not line.endswith(TERMINAL) or line.endswith(("...", "…"))):
        return False
    if c4.min_words_per_line and len(words_of(line)) < c4.min_words_per_line:
        return False
    return not (c4.javascript_lines and any(phrase in line.lower() for phrase in _BOILERPLATE))
