"""training_documents and the user's files → conversations."""

from __future__ import annotations

from functools import partial

from data_contracts import Artifact, ConfigError, Draft, InputError
from stages.collect_chats.candidates import Chat
from stages.collect_chats.config import CollectChatsConfig
from stages.collect_chats.conversations import ConversationWriter
from stages.collect_chats.pages import chats_of_shard
from stages.collect_chats.questions import Questions
from stages.collect_chats.sandbox import missing
from stages.collect_chats.user_chats import read_chats
from stages.execution.processes import local
from stages.execution.shards import map_shards
from stages.report import Facts, Report
from stages.text.heldout import split_of

SHARD = 32  # documents; fixed, so that the result does not depend on the number of workers


def run(
    config: CollectChatsConfig,
    *,
    training_documents: Artifact | None = None,
    out: Draft,
    report: Report,
) -> Facts:
    """Make chats of pages, of files and about the model itself.

    Each question is asked once. Rejected candidates are written with their reason.
    Memory: about 100 bytes per chat for duplicates, and one shard per worker.

    Args:
        config: The settings.
        training_documents: The pages. Without them, only files and the settings give chats.
        out: The draft that is written to.
        report: Receives progress and notes.

    Raises:
        ConfigError: There are neither pages nor files.
        InputError: There are no chats but those about the model itself.
    """
    if training_documents is None and not config.files:
        raise ConfigError(
            "stage collect_chats",
            "has neither training_documents nor files of your own to make chats of",
            "groundup stage collect_chats training_documents=NAME/training_documents"
            "   or: --set 'files=[\"chats.jsonl\"]'",
        )
    notes = _notes(config, training_documents)
    for note in notes:
        report.note(note)
    questions = Questions.load(config.questions_path, config.seed)
    with ConversationWriter(out) as writer:
        if training_documents:
            _add_pages(writer, training_documents, config, questions, report)
        for path in config.files:
            for row in read_chats(path):
                split = split_of(config.seed, config.heldout_share, row.content)
                writer.add_row(row, split)
        if "identity" in config.kinds:
            _add_identity(writer, config, questions)
    if writer.kept.total() == writer.kept["identity"]:
        raise _nothing_found(writer, config, training_documents)
    kinds = {f"kind_{kind}": count for kind, count in sorted(writer.kept.items())}
    return Facts(
        figures={"conversations": writer.kept.total(), "heldout": writer.heldout, **kinds},
        rejected=dict(sorted(writer.rejected.items())),
        samples=list(writer.samples.values()),
        notes=notes,
    )


def _notes(config: CollectChatsConfig, training_documents: Artifact | None) -> list[str]:
    """Say so if examples of pages should be run but cannot be."""
    if training_documents is None or "doctest" not in config.kinds:
        return []
    why = missing()
    return [f"examples of pages are not run, and give no chats: {why}"] if why else []


def _add_pages(
    writer: ConversationWriter,
    training_documents: Artifact,
    config: CollectChatsConfig,
    questions: Questions,
    report: Report,
) -> None:
    columns = ["id", "url", "source", "title", "text"]
    batches = training_documents.batches("documents", columns, batch_size=SHARD)
    shards = (batch.to_pylist() for batch in batches)
    work = partial(chats_of_shard, config=config, questions=questions)
    total = training_documents.rows("documents")
    done = 0
    for documents in map_shards(work, shards, local(config.workers)):
        for document in documents:
            for chat in document.chats:
                writer.add(chat, document.split, document.url, document.id)
        done = min(done + SHARD, total)
        report.progress(done, total, "documents")


def _add_identity(
    writer: ConversationWriter, config: CollectChatsConfig, questions: Questions
) -> None:
    for pair in questions.identity:
        answer = pair["answer"].format(name=config.assistant_name)
        chat = Chat("identity", pair["question"], answer)
        writer.add(chat, "train", "about:assistant", None)


def _nothing_found(
    writer: ConversationWriter, config: CollectChatsConfig, training_documents: Artifact | None
) -> InputError:
    total = training_documents.rows("documents") if training_documents else 0
    counts = [f"{count} {reason}" for reason, count in writer.rejected.most_common()]
    why = ", ".join(counts) or "no candidate was found"
    return InputError(
        "collect_chats",
        f"0 conversations from {total} documents and {len(config.files)} files: {why}",
        "widen kinds, pages or limits.max_chars, or give files;"
        " groundup stage collect_chats --keys   lists them",
    )
