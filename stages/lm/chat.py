"""The chat format of a checkpoint: its template, the assistant's tokens, the end of an answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data_contracts import ArtifactError
from stages.chat_templates import Messages
from stages.lm.tokenizer import ModelTokenizer

__all__ = ["ChatFormat", "EncodedChat", "Messages"]

PROBE: Messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]


@dataclass(frozen=True)
class EncodedChat:
    """A conversation as tokens.

    Attributes:
        ids: [tokens].
        answers: [tokens], true for the tokens that the assistant has to say, with its end of turn.
    """

    ids: list[int]
    answers: list[bool]

    def shifted(self, ignored: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the inputs and labels for training.

        Args:
            ignored: Label where the next token is not the assistant's.

        Returns:
            The tokens to read and the token that follows each, both int32 and one shorter than
            `ids`.
        """
        ids = np.array(self.ids, np.int32)
        labels = np.where(self.answers[1:], ids[1:], np.int32(ignored))
        return ids[:-1], labels


class ChatFormat:
    """The encoding of conversations, as apply_chat_template of transformers does it.

    The template runs in a child process within limits. Each method raises ArtifactError if the
    template exceeds them.

    Attributes:
        tokenizer: The tokenizer.
        stop_ids: Tokens that end an answer.

    Args:
        tokenizer: The tokenizer, with the chat template beside it.

    Raises:
        ArtifactError: The template does not mark the assistant's text, or does not end its turns.
    """

    def __init__(self, tokenizer: ModelTokenizer):
        self.tokenizer = tokenizer
        self._template = tokenizer.chat_template()
        self._special = tokenizer.special_tokens
        self.stop_ids = self._find_stop_ids()

    def _find_stop_ids(self) -> list[int]:
        probe = self.encode([PROBE])[0]
        answer = [token for token, said in zip(probe.ids, probe.answers, strict=True) if said]
        if not answer or self.tokenizer.backend.id_to_token(answer[-1]) not in self._special:
            raise ArtifactError(
                f"chat template of {self.tokenizer.what}",
                "does not mark the assistant's text with {% generation %}, "
                "or its turns do not end with a special token",
                "make the tokenizer again with train_tokenizer, or mark the template",
            )
        stop_ids = {answer[-1]}
        eos = self.tokenizer.special_ids["eos_token_id"]
        if eos is not None:
            stop_ids.add(eos)
        return sorted(stop_ids)

    def encode(self, conversations: Sequence[Messages]) -> list[EncodedChat]:
        """Encode whole conversations. A token is the assistant's if its first character is.

        Args:
            conversations: Whole conversations.

        Returns:
            The tokens of each, and which of them the assistant has to say.
        """
        rendered = self._template.render(conversations, marks=True)
        encoded = []
        encodings = self.tokenizer.encode([chat.text for chat in rendered])
        for encoding, chat in zip(encodings, rendered, strict=True):
            answers = [_is_inside(start, chat.answers) for start, _ in encoding.offsets]
            encoded.append(EncodedChat(encoding.ids, answers))
        return encoded

    def prompts(self, conversations: Sequence[Messages]) -> list[list[int]]:
        """Encode conversations up to the opening of the assistant's next answer.

        Args:
            conversations: Conversations that the assistant is to continue.

        Returns:
            The ids of each.
        """
        rendered = self._template.render(conversations, prompt=True)
        encodings = self.tokenizer.encode([chat.text for chat in rendered])
        return [encoding.ids for encoding in encodings]

    def text(self, ids: Sequence[int]) -> str:
        """Decode an answer, without special tokens and surrounding spaces.

        Args:
            ids: The tokens of the answer.
        """
        return self.tokenizer.backend.decode(list(ids), skip_special_tokens=True).strip()

    def special_token_in(self, messages: Messages) -> str | None:
        """Return the first special token that the text of a message spells out, or None.

        The model would read it as the real token.

        Args:
            messages: The messages of a conversation.
        """
        for message in messages:
            for token in self._special:
                if token in message["content"]:
                    return token
        return None


def _is_inside(position: int, spans: Sequence[tuple[int, int]]) -> bool:
    return any(start <= position < end for start, end in spans)
