"""What chats a page offers: (kind, question, answer), or the reason why something on it makes none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from stages.collect_chats import prose, reference
from stages.collect_chats.config import CollectChatsConfig
from stages.collect_chats.questions import Questions
from stages.collect_chats.reference import Entry


@dataclass(frozen=True)
class Chat:
    kind: str
    question: str
    answer: str


@dataclass(frozen=True)
class Refused:
    """reason: a short name to count by; detail: what exactly; content: what was refused."""

    kind: str
    content: str
    reason: str
    detail: str


def of_entries(
    entries: list[Entry], config: CollectChatsConfig, questions: Questions
) -> Iterator[Chat | Refused]:
    """From an API page: what each thing is for, how it is called, and which one does what."""
    for entry in entries:
        if not entry.public:
            continue
        kind = kind_of(entry)
        answer = described(entry, config)
        if kind in config.kinds:
            if isinstance(answer, Refused):
                yield answer
            else:
                form = "signature_class" if entry.kind == "class" else kind
                for question in questions.several(form, config.names.forms, name=entry.name):
                    yield Chat(kind, question, answer)
        if entry.kind != "function":
            continue
        shown = reference.shown_signature(entry)
        if "parameters" in config.kinds and shown:
            called = questions.put("parameters_answer", signature=shown)
            yield checked(
                "parameters",
                questions.put("parameters", name=entry.name),
                called,
                config,
                min_chars=1,
            )
        if "lookup" in config.kinds and isinstance(answer, str) and entry.module:
            asked = questions.put(
                "lookup", module=entry.module, description=prose.closed(prose.sentences(answer)[0])
            )
            yield checked(
                "lookup",
                asked,
                questions.put("lookup_answer", name=entry.name),
                config,
                min_chars=1,
            )


def kind_of(entry: Entry) -> str:
    """The kind of the chat that asks what the entry is for."""
    return "module" if entry.kind == "module" else "signature"


def described(entry: Entry, config: CollectChatsConfig) -> str | Refused:
    """The first whole sentences of the description, or why it has none to give."""
    kind, short = kind_of(entry), entry.name.split(".")[-1]
    for block in prose.paragraphs(entry.text):
        while block and block[0].startswith(
            f"{short}("
        ):  # the signature once more, in the author's own words
            block = block[1:]
        if not block:
            continue
        told = prose.prose(block)
        if told is None:
            return Refused(
                kind, entry.name, "not_prose", "the description starts with code, a list or a table"
            )
        answer = prose.whole_sentences(told, config.max_chars)
        if answer is None:
            return Refused(
                kind,
                entry.name,
                "too_long",
                f"the first sentence has more than {config.max_chars} characters",
            )
        if len(answer) < config.min_chars:
            return Refused(
                kind,
                entry.name,
                "too_short",
                f"{len(answer)} characters, wanted {config.min_chars}",
            )
        return answer
    return Refused(kind, entry.name, "undocumented", "it has no description")


def of_sections(
    title: str, text: str, config: CollectChatsConfig, questions: Questions, marked: bool = False
) -> Iterator[Chat | Refused]:
    """Heading → the first sentences below it. marked: only headings that are marked as such."""
    for heading, body in prose.sections(text, marked):
        if heading in title:
            continue
        question = questions.put("section", title=title, heading=heading)
        yield checked("section", question, prose.whole_sentences(body, config.max_chars), config)


def of_prose(
    title: str | None, text: str, config: CollectChatsConfig, questions: Questions
) -> Iterator[Chat | Refused]:
    """Any page in any language: title → first paragraph; first sentence of a paragraph → what follows."""
    bodies = [body for block in prose.paragraphs(text) if (body := prose.prose(block))]
    if title and bodies:
        yield checked(
            "prose",
            questions.put("prose_title", title=title),
            prose.whole_sentences(bodies[0], config.max_chars),
            config,
        )
    for body in bodies:
        first, *rest = prose.sentences(body)
        if rest:
            yield checked(
                "prose",
                questions.put("prose_continue", text=first),
                prose.whole_sentences(" ".join(rest), config.max_chars),
                config,
            )


def checked(
    kind: str,
    question: str,
    answer: str | None,
    config: CollectChatsConfig,
    min_chars: int | None = None,
) -> Chat | Refused:
    """The chat, if question and answer have the right lengths. answer None: not one sentence of it fits."""
    least = config.min_chars if min_chars is None else min_chars
    if answer is None or max(len(question), len(answer)) > config.max_chars:
        return Refused(
            kind,
            question,
            "too_long",
            f"question or answer has more than {config.max_chars} characters",
        )
    if len(answer) < least:
        return Refused(
            kind, question, "too_short", f"the answer has {len(answer)} characters, wanted {least}"
        )
    return Chat(kind, question, answer)


def clean_title(document: dict[str, Any]) -> str | None:
    """A title worth asking about."""
    title = " ".join((document["title"] or "").split())
    return title if 2 <= len(title) <= 120 and any(c.isalpha() for c in title) else None
