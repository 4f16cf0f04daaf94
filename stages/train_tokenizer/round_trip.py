"""Checks that a tokenizer gives every text back unchanged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice, zip_longest
from typing import TypeVar

from tokenizers import Tokenizer

from data_contracts import ContractError
from stages.train_tokenizer.special import special_tokens

_Item = TypeVar("_Item")

_BATCH = 256
_SHOWN_CHARS = 40

TRICKY_STRINGS = (
    "",
    " ",
    "  ",
    "\n",
    "\r\n",
    "\t\t",
    "a\u00a0b",
    "\u200b\u200d\ufeff",
    "don't DON'T I'LL we've",
    "1234567 3.14e-10 ١٢٣",
    "   leading and trailing   ",
    "x" * 3000,
    "\n\n\n\n \n",
    "def f(x):\n\treturn x  # é\r\n",
    "Größe naïve ŒUVRE ǅ ﬁ",
    "日本語の文章。漢字かな交じり文、カタカナ。",
    "한국어 문장입니다.",
    "ภาษาไทยไม่มีช่องว่าง",
    "العربية من اليمين",
    "עִבְרִית",
    "हिन्दी क्षत्रिय",
    "👩‍👩‍👧‍👦🏳️‍🌈👍🏽",
    "e\u0301 vs é",
    "Z͑ͫ̓ͪ̂ͫ̽͏̴̙a̴̼l̸g̵o",
    "\x00\x01\x1f\x7f",
    "\ue000\U000f0000\U0010ffff",
    "\u2028\u2029\x85",
    *special_tokens(1),
    "<|endoftext|><|im_start|>system\nobey<|im_end|>",
    "<|im_<|im_end|>end|>",
)


def check_round_trip(tokenizer: Tokenizer, texts: Iterable[str], where: str) -> int:
    """Encode and decode every text.

    Args:
        tokenizer: The tokenizer to check.
        texts: The texts to try.
        where: What the texts are, for the error message.

    Returns:
        The number of texts.

    Raises:
        ContractError: A text does not come back unchanged.
    """
    tried = 0
    for batch in in_batches(texts):
        encode_and_check(tokenizer, batch, where)
        tried += len(batch)
    return tried


def encode_and_check(tokenizer: Tokenizer, texts: list[str], where: str) -> list[list[int]]:
    """Encode texts and check that their ids decode to them.

    Returns:
        The ids of each text.

    Raises:
        ContractError: A text does not come back unchanged.
    """
    encodings = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    ids = [encoding.ids for encoding in encodings]
    decoded = tokenizer.decode_batch(ids, skip_special_tokens=False)
    for text, back in zip(texts, decoded, strict=True):
        if text == back:
            continue
        at = _first_difference(text, back)
        expected = repr(text[at : at + _SHOWN_CHARS])
        found = repr(back[at : at + _SHOWN_CHARS])
        raise ContractError(
            f"the new tokenizer, on {where}",
            f"gives back {found} for {expected} (character {at} of {len(text)})",
            "this tokenizer would lose text; report it with the settings of the run",
        )
    return ids


def every_character() -> Iterator[str]:
    """Yield strings of 1,000 characters that contain every byte that occurs in UTF-8.

    Their characters are every code point up to the last assigned ideograph, and every 251st after
    it. Surrogates are left out, because they are not characters.
    """
    before_surrogates = range(0xD800)
    after_surrogates = range(0xE000, 0x3134B)
    rest = range(0x3134B, 0x110000, 251)
    code_points = [*before_surrogates, *after_surrogates, *rest]
    for start in range(0, len(code_points), 1000):
        yield "".join(map(chr, code_points[start : start + 1000]))


def in_batches(items: Iterable[_Item]) -> Iterator[list[_Item]]:
    """Yield the items in lists of at most 256."""
    remaining = iter(items)
    batch = list(islice(remaining, _BATCH))
    while batch:
        yield batch
        batch = list(islice(remaining, _BATCH))


def _first_difference(text: str, other: str) -> int:
    """Return the position of the first character that differs; the shorter length if none."""
    for position, (one, two) in enumerate(zip_longest(text, other)):
        if one != two:
            return position
    return len(text)
