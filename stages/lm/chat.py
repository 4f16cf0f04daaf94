"""How a checkpoint writes conversations: its chat template, which tokens are the assistant's, and where an answer ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer
from transformers.utils.chat_template_utils import render_jinja_template

from data_contracts import Artifact, ArtifactError
from stages.lm.checkpoint import load_tokenizer, special_ids

Messages = Sequence[Mapping[str, str]]  # [{"role": "user", "content": "…"}, …]


@dataclass(frozen=True)
class Encoded:
    """ids: [n] tokens of a conversation. answers: [n], true for each token that the assistant has to say, its end of turn included."""

    ids: list[int]
    answers: list[bool]

    def shifted(self, ignored: int) -> tuple[np.ndarray, np.ndarray]:
        """(tokens read, token wanted after each): int32, both one shorter, `ignored` where the next token is not the assistant's."""
        ids = np.array(self.ids, np.int32)
        return ids[:-1], np.where(self.answers[1:], ids[1:], np.int32(ignored))


class ChatFormat:
    """The chat template of a checkpoint or tokenizer, as transformers' apply_chat_template would use it.

    stop_ids: tokens that end an answer.
    """

    def __init__(self, source: Artifact | Path):
        folder = source.path if isinstance(source, Artifact) else source
        self._source, self._template = source, (folder / "chat_template.jinja").read_text("utf-8")
        self.tokenizer: Tokenizer = load_tokenizer(source)
        self._special = [token.content for token in self.tokenizer.get_added_tokens_decoder().values() if token.special]
        probe = self.encode([[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]])[0]
        said = [token for token, counts in zip(probe.ids, probe.answers, strict=True) if counts]
        if not said or self.tokenizer.id_to_token(said[-1]) not in self._special:
            raise ArtifactError(
                f"chat template of {source}",
                "does not mark the assistant's text with {% generation %}, or its turns do not end with a special token",
                "make the tokenizer again with train_tokenizer, or mark the template",
            )
        ends = special_ids(source)["eos_token_id"]
        self.stop_ids = sorted({said[-1]} | ({ends} if ends is not None else set()))

    def encode(self, conversations: Sequence[Messages]) -> list[Encoded]:
        """Whole conversations. A token is the assistant's if its first character is."""
        texts, spans = self._render(conversations, add_generation_prompt=False, return_assistant_tokens_mask=True)
        found = []
        for encoding, marks in zip(self.tokenizer.encode_batch(texts, add_special_tokens=False), spans, strict=True):
            answers = [any(start <= begin < end for start, end in marks) for begin, _ in encoding.offsets]
            found.append(Encoded(encoding.ids, answers))
        return found

    def prompts(self, conversations: Sequence[Messages]) -> list[list[int]]:
        """The turns so far, and the opening of the assistant's answer."""
        texts, _ = self._render(conversations, add_generation_prompt=True)
        return [encoding.ids for encoding in self.tokenizer.encode_batch(texts, add_special_tokens=False)]

    def text(self, ids: Sequence[int]) -> str:
        """An answer as text, without special tokens and surrounding spaces."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=True).strip()

    def forged(self, messages: Messages) -> str | None:
        """A special token that the text of a turn spells out, if any: it would be read as the real one."""
        return next((token for message in messages for token in self._special if token in message["content"]), None)

    def _render(self, conversations: Sequence[Messages], **settings: Any) -> tuple[list[str], list[list[tuple[int, int]]]]:
        chats = [[dict(message) for message in messages] for messages in conversations]
        return render_jinja_template(chats, chat_template=self._template, **settings)  # type: ignore[return-value]
