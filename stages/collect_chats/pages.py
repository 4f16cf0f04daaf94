"""The chats of a shard of pages, in a form that a worker process can return."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from stages.collect_chats import candidates, doctests, reference
from stages.collect_chats.candidates import Chat, RejectedChat
from stages.collect_chats.config import CollectChatsConfig
from stages.collect_chats.questions import Questions
from stages.config import any_found
from stages.digests import seed_for
from stages.documentation_server import is_documentation_server
from stages.text.heldout import split_of


@dataclass(frozen=True)
class DocumentChats:
    """A document and the chats that it gives, the rejected ones among them."""

    id: str
    url: str
    split: str
    chats: list[Chat | RejectedChat]


def chats_of_shard(
    documents: list[dict[str, Any]], config: CollectChatsConfig, questions: Questions
) -> list[DocumentChats]:
    """Return the chats of each document whose address matches `config.pages`."""
    made = []
    for document in documents:
        if config.pages and not any_found(config.pages, document["url"]):
            continue
        found = [
            chat
            for chat in chats_of_document(document, config, questions)
            if chat.kind in config.kinds
        ]
        split = split_of(config.seed, config.heldout_share, document["id"])
        if any_found(config.always_train, document["url"]):
            split = "train"
        chats = _limited(found, config)
        made.append(DocumentChats(document["id"], document["url"], split, chats))
    return made


def _limited(
    found: list[Chat | RejectedChat], config: CollectChatsConfig
) -> list[Chat | RejectedChat]:
    """Reject the chats over `config.limits.per_document`. A hash of the question decides which."""
    chats = [chat for chat in found if isinstance(chat, Chat)]
    chats.sort(key=lambda chat: seed_for(config.seed, chat.question))
    excess = set(chats[config.limits.per_document :])
    detail = f"the document has {len(chats)} chats, at most {config.limits.per_document} are kept"
    limited: list[Chat | RejectedChat] = []
    for chat in found:
        if isinstance(chat, Chat) and chat in excess:
            chat = RejectedChat(chat.kind, chat.question, "over_document_limit", detail)
        limited.append(chat)
    return limited


def chats_of_document(
    document: dict[str, Any], config: CollectChatsConfig, questions: Questions
) -> Iterator[Chat | RejectedChat]:
    """Yield every chat that a document offers.

    An API page offers its entries, sections and examples; any other page its sections and
    paragraphs.
    """
    module = reference.module_of(document["title"])
    if module:
        yield from _chats_of_api_page(module, document, config, questions)
        return
    title = candidates.clean_title(document)
    if title:
        yield from candidates.of_sections(title, document["text"], config, questions)
    yield from candidates.of_prose(title, document["text"], config, questions)


def _chats_of_api_page(
    module: str, document: dict[str, Any], config: CollectChatsConfig, questions: Questions
) -> Iterator[Chat | RejectedChat]:
    entries = list(reference.entries(module, document["text"]))
    page = entries[0]  # the module itself
    asked = []
    for entry in entries:
        if not any_found(config.names.skip, entry.name):
            asked.append(entry)
        elif entry.is_public:
            kind = candidates.kind_of(entry)
            yield RejectedChat(kind, entry.name, "skipped", "names.skip leaves it out")
    yield from candidates.of_entries(asked, config, questions)
    yield from candidates.of_sections(page.name, page.text, config, questions, only_marked=True)
    if "doctest" not in config.kinds:
        return
    if is_documentation_server(document["url"]):
        yield from doctests.of_entries(asked, config, questions)
    elif ">>>" in document["text"]:
        detail = "only examples of the built-in documentation server are run"
        yield RejectedChat("doctest", page.name, "foreign_examples", detail)
