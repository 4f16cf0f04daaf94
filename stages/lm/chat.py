"""How a checkpoint writes conversations: its chat template, which tokens are the assistant's, and where an answer ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Encoding, Tokenizer

from data_contracts import Artifact, ArtifactError
from stages.chat_templates import ChatTemplate, Messages, Rendered
from stages.lm.checkpoint import load_tokenizer, special_ids, special_tokens

__all__ = ["ChatFormat", "Encoded", "Messages", "chat_template"]


@dataclass(frozen=True)
class Encoded:
    """ids: [n] tokens of a conversation. answers: [n], true for each token that the assistant has to say, its end of turn included."""

    ids: list[int]
    answers: list[bool]

    def shifted(self, ignored: int) -> tuple[np.ndarray, np.ndarray]:
        """(tokens read, token wanted after each): int32, both one shorter, `ignored` where the next token is not the assistant's."""
        ids = np.array(self.ids, np.int32)
        return ids[:-1], np.where(self.answers[1:], ids[1:], np.int32(ignored))


def chat_template(source: Artifact | Path) -> ChatTemplate:
    """The chat template of a checkpoint or tokenizer; it may use what transformers lets it use.

    Raises:
        ArtifactError: There is none that can be read.
    """
    folder = source.path if isinstance(source, Artifact) else source
    named = {key: text for key, text in special_tokens(source).items() if text}
    return ChatTemplate.of_folder(folder, f"chat template of {source}", named)


class ChatFormat:
    """The chat template of a checkpoint or tokenizer, as transformers' apply_chat_template would use it.

    It runs in a child process within limits; each method raises ArtifactError if it goes beyond them.
    stop_ids: tokens that end an answer.
    """

    def __init__(self, source: Artifact | Path):
        self._template = chat_template(source)
        self.tokenizer: Tokenizer = load_tokenizer(source)
        self._special = [
            token.content
            for token in self.tokenizer.get_added_tokens_decoder().values()
            if token.special
        ]
        probe = self.encode(
            [[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]]
        )[0]
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
        rendered = self._template.render(conversations, marks=True)
        found = []
        for encoding, chat in zip(self._encoded(rendered), rendered, strict=True):
            answers = [
                any(start <= begin < end for start, end in chat.answers)
                for begin, _ in encoding.offsets
            ]
            found.append(Encoded(encoding.ids, answers))
        return found

    def prompts(self, conversations: Sequence[Messages]) -> list[list[int]]:
        """The turns so far, and the opening of the assistant's answer."""
        return [
            encoding.ids
            for encoding in self._encoded(self._template.render(conversations, prompt=True))
        ]

    def text(self, ids: Sequence[int]) -> str:
        """An answer as text, without special tokens and surrounding spaces."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=True).strip()

    def forged(self, messages: Messages) -> str | None:
        """A special token that the text of a turn spells out, if any: it would be read as the real one."""
        return next(
            (
                token
                for message in messages
                for token in self._special
                if token in message["content"]
            ),
            None,
        )

    def _encoded(self, rendered: Sequence[Rendered]) -> list[Encoding]:
        return self.tokenizer.encode_batch(
            [chat.text for chat in rendered], add_special_tokens=False
        )
