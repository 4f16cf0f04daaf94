"""Language of a text, by fastText's lid.176 (176 languages; Joulin et al. 2016)."""

from __future__ import annotations

import re
from functools import cache

import fasttext

UNDECIDED = "und"  # ISO 639-2 for undetermined

_PIECE = 800  # characters taken from the beginning, the middle and the end: enough to decide, and cost stays bounded
_NO_LETTERS = re.compile(r"[\W\d_]+")


def identify(text: str, model_path: str) -> tuple[str, float | None]:
    """ISO 639 code and the model's probability; `und` and None for a text without letters."""
    sample = _NO_LETTERS.sub(" ", _sample(text)).strip()
    if not sample:
        return UNDECIDED, None
    labels, probabilities = load(model_path).predict(
        [sample.lower()]
    )  # a list: a plain string fails under numpy 2
    return labels[0][0].removeprefix("__label__"), min(float(probabilities[0][0]), 1.0)


def _sample(text: str) -> str:
    if len(text) <= 3 * _PIECE:
        return text
    middle = len(text) // 2
    return " ".join((text[:_PIECE], text[middle : middle + _PIECE], text[-_PIECE:]))


@cache
def load(path: str) -> fasttext.FastText._FastText:
    """Raises ValueError or MemoryError if the file is no model."""
    return fasttext.load_model(path)
