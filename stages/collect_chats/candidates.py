"""The chats that a page offers, and the reasons why parts of it offer none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from stages.collect_chats import prose, reference
from stages.collect_chats.config import CollectChatsConfig
from stages.collect_chats.questions import Questions
from stages.collect_chats.reference import ApiEntry
from stages.text.sentences import Breaks, sentences

MIN_TITLE_CHARS = 2
MAX_TITLE_CHARS = 120


@dataclass(frozen=True)
class Chat:
    """One question and its answer."""

    kind: str
    question: str
    answer: str


@dataclass(frozen=True)
class RejectedChat:
    """A candidate that is not used.

    Attributes:
        kind: The kind of chat that it would have been.
        content: What was rejected, e.g. the question or the name of a function.
        reason: A short name to count by, e.g. `too_long`.
        detail: What exactly is wrong.
    """

    kind: str
    content: str
    reason: str
    detail: str


def of_entries(
    entries: list[ApiEntry], config: CollectChatsConfig, questions: Questions
) -> Iterator[Chat | RejectedChat]:
    """Yield the chats of an API page.

    They ask what each entry is for, how it is called, and which function does a given thing.
    """
    for entry in entries:
        if not entry.is_public:
            continue
        description = describe(entry, config)
        if kind_of(entry) in config.kinds:
            yield from _purpose_chats(entry, description, config, questions)
        if entry.kind != "function":
            continue
        if "parameters" in config.kinds:
            yield from _parameters_chats(entry, config, questions)
        if "lookup" in config.kinds and isinstance(description, str):
            yield from _lookup_chats(entry, description, config, questions)


def _purpose_chats(
    entry: ApiEntry,
    description: str | RejectedChat,
    config: CollectChatsConfig,
    questions: Questions,
) -> Iterator[Chat | RejectedChat]:
    """Yield chats of the form: What is NAME for? → its description."""
    if isinstance(description, RejectedChat):
        yield description
        return
    kind = kind_of(entry)
    form = "signature_class" if entry.kind == "class" else kind
    for question in questions.fill_several(form, config.names.forms, name=entry.name):
        yield Chat(kind, question, description)


def _parameters_chats(
    entry: ApiEntry, config: CollectChatsConfig, questions: Questions
) -> Iterator[Chat | RejectedChat]:
    """Yield chats of the form: What are the parameters of NAME? → its signature."""
    signature = reference.shown_signature(entry)
    if not signature:
        return
    answer = questions.fill("parameters_answer", signature=signature)
    question = questions.fill("parameters", name=entry.name)
    yield checked_chat("parameters", question, answer, config, min_chars=1)


def _lookup_chats(
    entry: ApiEntry, description: str, config: CollectChatsConfig, questions: Questions
) -> Iterator[Chat | RejectedChat]:
    """Yield chats of the form: Which function of MODULE does this? → its name."""
    if not entry.module:
        return
    first_sentence = prose.with_end_mark(sentences(description, Breaks.PROSE)[0])
    question = questions.fill("lookup", module=entry.module, description=first_sentence)
    answer = questions.fill("lookup_answer", name=entry.name)
    yield checked_chat("lookup", question, answer, config, min_chars=1)


def kind_of(entry: ApiEntry) -> str:
    """Return the kind of the chat that asks what the entry is for."""
    return "module" if entry.kind == "module" else "signature"


def describe(entry: ApiEntry, config: CollectChatsConfig) -> str | RejectedChat:
    """Return the first whole sentences of an entry's description, or why there are none to use."""
    kind = kind_of(entry)
    for paragraph in prose.paragraphs(entry.text):
        lines = _without_signatures(paragraph, entry)
        if not lines:
            continue
        text = prose.paragraph_text(lines)
        if text is None:
            detail = "the description starts with code, a list or a table"
            return RejectedChat(kind, entry.name, "not_prose", detail)
        answer = prose.whole_sentences(text, config.limits.max_chars)
        if answer is None:
            detail = f"the first sentence has more than {config.limits.max_chars} characters"
            return RejectedChat(kind, entry.name, "too_long", detail)
        if len(answer) < config.limits.min_chars:
            detail = f"{len(answer)} characters, wanted {config.limits.min_chars}"
            return RejectedChat(kind, entry.name, "too_short", detail)
        return answer
    return RejectedChat(kind, entry.name, "undocumented", "it has no description")


def _without_signatures(lines: list[str], entry: ApiEntry) -> list[str]:
    """Drop leading lines in which the author repeats the signature in other words."""
    call = entry.name.split(".")[-1] + "("
    first = 0
    while first < len(lines) and lines[first].startswith(call):
        first += 1
    return lines[first:]


def of_sections(
    title: str,
    text: str,
    config: CollectChatsConfig,
    questions: Questions,
    only_marked: bool = False,
) -> Iterator[Chat | RejectedChat]:
    """Yield one chat per section: what does TITLE say about HEADING? → its first sentences.

    Args:
        title: The title of the page.
        text: The text of the page.
        config: The lengths that a chat may have.
        questions: The forms of the questions.
        only_marked: Only headings that are underlined or start with `#` count. Otherwise every
            short line between blank lines counts, too.
    """
    for heading, body in prose.sections(text, only_marked):
        if heading in title:
            continue
        question = questions.fill("section", title=title, heading=heading)
        answer = prose.whole_sentences(body, config.limits.max_chars)
        yield checked_chat("section", question, answer, config)


def of_prose(
    title: str | None, text: str, config: CollectChatsConfig, questions: Questions
) -> Iterator[Chat | RejectedChat]:
    """Yield the chats of a page in any language.

    What is TITLE about? → the first paragraph. Continue this sentence → the rest of its paragraph.
    """
    bodies = []
    for paragraph in prose.paragraphs(text):
        body = prose.paragraph_text(paragraph)
        if body:
            bodies.append(body)
    if title and bodies:
        question = questions.fill("prose_title", title=title)
        answer = prose.whole_sentences(bodies[0], config.limits.max_chars)
        yield checked_chat("prose", question, answer, config)
    for body in bodies:
        first, *rest = sentences(body, Breaks.PROSE)
        if rest:
            question = questions.fill("prose_continue", text=first)
            answer = prose.whole_sentences(" ".join(rest), config.limits.max_chars)
            yield checked_chat("prose", question, answer, config)


def checked_chat(
    kind: str,
    question: str,
    answer: str | None,
    config: CollectChatsConfig,
    min_chars: int | None = None,
) -> Chat | RejectedChat:
    """Return the chat if its question and answer have the right lengths.

    Args:
        kind: The kind of the chat.
        question: What the user asks.
        answer: What the assistant answers; None if not even one sentence fits.
        config: Holds the bounds of both lengths.
        min_chars: The shortest answer, if other than `config.limits.min_chars`.
    """
    if min_chars is None:
        min_chars = config.limits.min_chars
    if answer is None or max(len(question), len(answer)) > config.limits.max_chars:
        detail = f"question or answer has more than {config.limits.max_chars} characters"
        return RejectedChat(kind, question, "too_long", detail)
    if len(answer) < min_chars:
        detail = f"the answer has {len(answer)} characters, wanted {min_chars}"
        return RejectedChat(kind, question, "too_short", detail)
    return Chat(kind, question, answer)


def clean_title(document: dict[str, Any]) -> str | None:
    """Return the title of a document, or None if it is not worth asking about."""
    title = " ".join((document["title"] or "").split())
    has_good_length = MIN_TITLE_CHARS <= len(title) <= MAX_TITLE_CHARS
    has_letters = any(character.isalpha() for character in title)
    return title if has_good_length and has_letters else None
