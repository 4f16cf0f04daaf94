"""Writes the tables of the artifact: conversations, each question once, and rejects."""

from __future__ import annotations

from collections import Counter
from typing import Any

from data_contracts import Draft
from stages.collect_chats.candidates import Chat, RejectedChat
from stages.collect_chats.user_chats import Message, UserRow
from stages.digests import digest

MAX_SAMPLES = 6


class ConversationWriter:
    """A writer of conversations and rejects, and their counts. Repeated questions are rejected.

    Memory: about 100 bytes per conversation.

    Attributes:
        kept: Conversations by kind.
        rejected: Rejects by reason.
        heldout: Conversations of the held-out split.
        samples: The first conversation of each of the first kinds.
    """

    def __init__(self, out: Draft):
        self.kept: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()
        self.heldout = 0
        self.samples: dict[str, dict[str, str]] = {}
        self._conversations = out.writer("conversations")
        self._rejects = out.writer("rejects")
        self._known_questions: set[bytes] = set()

    def __enter__(self) -> ConversationWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._conversations.close()
        self._rejects.close()

    def add(self, chat: Chat | RejectedChat, split: str, url: str, document: str | None) -> None:
        """Add a chat, or a rejected one.

        Args:
            chat: What to add.
            split: `train` or `heldout`.
            url: Where it comes from.
            document: The id of the document it comes from, if any.
        """
        if isinstance(chat, RejectedChat):
            self._reject(chat, url)
            return
        messages = [
            {"role": "user", "content": chat.question},
            {"role": "assistant", "content": chat.answer},
        ]
        self._keep(messages, chat.kind, split, url, document)

    def add_row(self, row: UserRow, split: str) -> None:
        """Add a row of the user's own files."""
        if row.messages is None:
            self._reject(RejectedChat("user", row.content, row.reason, row.detail), row.url)
        else:
            self._keep(row.messages, "user", split, row.url, None)

    def _keep(
        self, messages: list[Message], kind: str, split: str, url: str, document: str | None
    ) -> None:
        question, answer = messages[-2]["content"], messages[-1]["content"]
        key_parts: list[str] = []
        for message in messages[:-1]:
            key_parts += [message["role"], message["content"]]
        key = bytes.fromhex(digest(*key_parts))
        if key in self._known_questions:
            detail = "the same was asked before"
            self._reject(RejectedChat(kind, question, "duplicate_question", detail), url)
            return
        self._known_questions.add(key)
        row = {
            "id": digest(*key_parts, "assistant", answer),
            "messages": messages,
            "kind": kind,
            "split": split,
            "document": document,
            "url": url,
        }
        self._conversations.write([row])
        self.kept[kind] += 1
        if split == "heldout":
            self.heldout += 1
        if kind not in self.samples and len(self.samples) < MAX_SAMPLES:
            self.samples[kind] = {"kind": kind, "prompt": question, "answer": answer}

    def _reject(self, rejected: RejectedChat, url: str) -> None:
        self.rejected[rejected.reason] += 1
        row: dict[str, Any] = {
            "url": url,
            "kind": rejected.kind,
            "content": rejected.content,
            "reason": rejected.reason,
            "detail": rejected.detail,
        }
        self._rejects.write([row])
