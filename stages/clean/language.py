"""Language identification with fastText's lid.176 (176 languages; Joulin et al. 2016)."""

from __future__ import annotations

from functools import cache

import fasttext

from stages.text.scripts import letters_only

UNDETERMINED = "und"  # the code of ISO 639-2

# Characters taken from the beginning, the middle and the end of a text. They are enough to decide,
# and the cost stays bounded.
_SAMPLE_CHARS = 800


def identify(text: str, model_path: str) -> tuple[str, float | None]:
    """Identify the language of a text.

    Returns:
        The ISO 639 code and the model's probability; `und` and None for a text without letters.
    """
    sample = letters_only(_sample(text))
    if not sample:
        return UNDETERMINED, None
    # fastText's predict fails on a plain string under numpy 2, so it gets a list.
    labels, probabilities = load(model_path).predict([sample.lower()])
    code = labels[0][0].removeprefix("__label__")
    return code, min(float(probabilities[0][0]), 1.0)


def _sample(text: str) -> str:
    if len(text) <= 3 * _SAMPLE_CHARS:
        return text
    middle = len(text) // 2
    pieces = (
        text[:_SAMPLE_CHARS],
        text[middle : middle + _SAMPLE_CHARS],
        text[-_SAMPLE_CHARS:],
    )
    return " ".join(pieces)


@cache
def load(path: str) -> fasttext.FastText._FastText:
    """Load a fastText model, once per process.

    Raises:
        ValueError, MemoryError: The file is not a fastText model.
    """
    return fasttext.load_model(path)
