"""training_documents and the user's files → conversations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

from data_contracts import Artifact, ConfigError, Draft, InputError
from stages.collect_chats import candidates, doctests, reference
from stages.collect_chats.candidates import Chat, Refused
from stages.collect_chats.config import CollectChatsConfig
from stages.collect_chats.questions import Questions
from stages.collect_chats.sandbox import missing
from stages.collect_chats.user_chats import read_chats
from stages.config import any_found
from stages.digests import digest, seed_for
from stages.documentation_server import is_documentation_server
from stages.execution.shards import map_shards
from stages.report import Facts, Report

SHARD = 32  # documents; fixed, so that the result does not depend on the number of workers
SAMPLES = 6


def run(
    config: CollectChatsConfig,
    *,
    training_documents: Artifact | None = None,
    out: Draft,
    report: Report,
) -> Facts:
    """Chats from pages, from files and about the model itself; each question once, refused candidates with their reason.

    training_documents: the pages; without them only files and the settings give chats.
    Raises ConfigError if there are neither pages nor files, InputError if nothing comes out but what the model says of itself.
    Memory: about 100 bytes per chat for duplicates, beside one shard per worker.
    """
    if training_documents is None and not config.files:
        raise ConfigError(
            "stage collect_chats",
            "has neither training_documents nor files of your own to make chats of",
            "groundup stage collect_chats training_documents=NAME/training_documents   or: --set 'files=[\"chats.jsonl\"]'",
        )
    book = _Book(out)
    notes = _examples_not_run(config, training_documents)
    for note in notes:
        report.note(note)
    questions = Questions.load(config.questions_path, config.seed)
    total, done = training_documents.rows("documents") if training_documents else 0, 0
    columns = ["id", "url", "source", "title", "text"]
    batches = (
        training_documents.batches("documents", columns, batch_size=SHARD)
        if training_documents
        else ()
    )
    shards = (batch.to_pylist() for batch in batches)
    with book:
        for made in map_shards(
            partial(chats_of_shard, config=config, questions=questions), shards, config.workers
        ):
            for document, found in made:
                for one in found:
                    book.add(one, document["split"], document["url"], document["id"])
            done = min(done + SHARD, total)
            report.progress(done, total, "documents")
        for path in config.files:
            for row in read_chats(path):
                book.add_row(row, heldout_split(config, row.content))
        if "identity" in config.kinds:
            for pair in questions.identity:
                answer = pair["answer"].format(name=config.assistant_name)
                book.add(
                    Chat("identity", pair["question"], answer), "train", "about:assistant", None
                )
    if not book.kept.total() - book.kept["identity"]:
        told = (
            ", ".join(f"{count} {reason}" for reason, count in book.rejected.most_common())
            or "no candidate was found"
        )
        raise InputError(
            "collect_chats", f"0 conversations from {total} documents and {len(config.files)} files: {told}",
            "widen kinds, pages or max_chars, or give files; groundup stage collect_chats --keys   lists them",
        )  # fmt: skip
    return Facts(
        figures={
            "conversations": book.kept.total(),
            "heldout": book.heldout,
            **{f"kind_{kind}": n for kind, n in sorted(book.kept.items())},
        },
        rejected=dict(sorted(book.rejected.items())),
        samples=list(book.samples.values()),
        notes=notes,
    )


def _examples_not_run(config: CollectChatsConfig, pages: Artifact | None) -> list[str]:
    if pages is None or "doctest" not in config.kinds or not (why := missing()):
        return []
    return [f"examples of pages are not run, and give no chats: {why}"]


def chats_of_shard(
    documents: list[dict[str, Any]], config: CollectChatsConfig, questions: Questions
) -> list[tuple[dict[str, str], list[Chat | Refused]]]:
    """For each document its id, url and split, and what it offers: at most per_document chats, chosen by hash."""
    made = []
    for document in documents:
        if config.pages and not any_found(config.pages, document["url"]):
            continue
        found = [one for one in offers(document, config, questions) if one.kind in config.kinds]
        chats = sorted(
            (one for one in found if isinstance(one, Chat)),
            key=lambda chat: seed_for(config.seed, chat.question),
        )
        beyond = set(chats[config.per_document :])
        detail = f"the document has {len(chats)} chats, at most {config.per_document} are kept"
        found = [
            Refused(one.kind, one.question, "over_document_limit", detail) if one in beyond else one
            for one in found
        ]
        trained = any_found(config.always_train, document["url"])
        split = "train" if trained else heldout_split(config, document["id"])
        made.append(({"id": document["id"], "url": document["url"], "split": split}, found))
    return made


def offers(
    document: dict[str, Any], config: CollectChatsConfig, questions: Questions
) -> Iterator[Chat | Refused]:
    """Everything that a document offers: an API page's entries and examples, any other page's paragraphs."""
    module = reference.module_of(document["title"])
    if module is None:
        title = candidates.clean_title(document)
        if title:
            yield from candidates.of_sections(title, document["text"], config, questions)
        yield from candidates.of_prose(title, document["text"], config, questions)
        return
    entries = list(reference.entries(module, document["text"]))
    asked = []
    for entry in entries:
        if not any_found(config.names.skip, entry.name):
            asked.append(entry)
        elif entry.public:
            kind = candidates.kind_of(entry)
            yield Refused(kind, entry.name, "skipped", "names.skip leaves it out")
    yield from candidates.of_entries(asked, config, questions)
    yield from candidates.of_sections(
        entries[0].name, entries[0].text, config, questions, marked=True
    )
    if "doctest" not in config.kinds:
        return
    if is_documentation_server(document["url"]):
        yield from doctests.of_entries(asked, config, questions)
    elif ">>>" in document["text"]:
        why = "only examples of the built-in documentation server are run"
        yield Refused("doctest", entries[0].name, "foreign_examples", why)


def heldout_split(config: CollectChatsConfig, key: str) -> str:
    """train or heldout, by hash of what must stay together."""
    return (
        "heldout"
        if seed_for(config.seed, "heldout", key) < config.heldout_share * 2**63
        else "train"
    )


class _Book:
    """Writes conversations and rejects, one question only once, and counts."""

    def __init__(self, out: Draft):
        self._conversations, self._rejects = out.writer("conversations"), out.writer("rejects")
        self._seen: set[bytes] = set()
        self.kept: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()
        self.heldout = 0
        self.samples: dict[str, dict[str, str]] = {}

    def __enter__(self) -> _Book:
        return self

    def __exit__(self, *_: object) -> None:
        self._conversations.close()
        self._rejects.close()

    def add(self, one: Chat | Refused, split: str, url: str, document: str | None) -> None:
        if isinstance(one, Refused):
            self._reject(one, url)
            return
        messages = [
            {"role": "user", "content": one.question},
            {"role": "assistant", "content": one.answer},
        ]
        self._keep(messages, one.kind, split, url, document)

    def add_row(self, row: Any, split: str) -> None:
        if row.messages is None:
            self._reject(Refused("user", row.content, row.reason, row.detail), row.url)
        else:
            self._keep(row.messages, "user", split, row.url, None)

    def _keep(
        self, messages: list[dict[str, str]], kind: str, split: str, url: str, document: str | None
    ) -> None:
        asked = [
            part for message in messages[:-1] for part in (message["role"], message["content"])
        ]
        key = bytes.fromhex(digest(*asked))
        if key in self._seen:
            self._reject(
                Refused(
                    kind, messages[-2]["content"], "duplicate_question", "the same was asked before"
                ),
                url,
            )
            return
        self._seen.add(key)
        name = digest(*asked, "assistant", messages[-1]["content"])
        row = {
            "id": name,
            "messages": messages,
            "kind": kind,
            "split": split,
            "document": document,
            "url": url,
        }
        self._conversations.write([row])
        self.kept[kind] += 1
        self.heldout += split == "heldout"
        if len(self.samples) < SAMPLES:
            self.samples.setdefault(
                kind,
                {
                    "kind": kind,
                    "prompt": messages[-2]["content"],
                    "answer": messages[-1]["content"],
                },
            )

    def _reject(self, refused: Refused, url: str) -> None:
        self.rejected[refused.reason] += 1
        row = {
            "url": url,
            "kind": refused.kind,
            "content": refused.content,
            "reason": refused.reason,
            "detail": refused.detail,
        }
        self._rejects.write([row])
