"""Byte-level BPE as in Llama 3's tokenizer.json, so that llama.cpp's `llama-bpe` gives equal ids.

Sennrich et al. 2016 (BPE), Radford et al. 2019 (over bytes).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from data_contracts.bundles import LLAMA3_SPLIT


def train(
    texts: Iterable[str],
    vocabulary_size: int,
    special: Sequence[str],
    min_frequency: int,
    max_token_bytes: int,
) -> Tokenizer:
    """Learn a vocabulary.

    Only counts of words matter, so the order of `texts` does not. Memory grows with the number of
    distinct words.

    Args:
        texts: The texts to learn from.
        vocabulary_size: Maximum number of tokens.
        special: The special tokens, in the order of their ids.
        min_frequency: How often a pair of tokens must occur to become a token.
        max_token_bytes: Maximum length of a token.

    Returns:
        A tokenizer that encodes the text of special tokens as control ids. Set its
        `encode_special_tokens` to True wherever the text comes from documents.
    """
    # llama-bpe takes a word that is itself a token before it looks at the merges; without
    # ignore_merges, the ids would differ.
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    split = pre_tokenizers.Split(Regex(LLAMA3_SPLIT), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        min_frequency=min_frequency,
        max_token_length=max_token_bytes,
        special_tokens=[AddedToken(token, normalized=False, special=True) for token in special],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
