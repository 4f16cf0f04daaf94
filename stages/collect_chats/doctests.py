"""Examples at the Python prompt → "what does this print?" chats, each verified by running it."""

from __future__ import annotations

import ast
import builtins
import doctest
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from stages.collect_chats.candidates import Chat, RejectedChat, checked_chat
from stages.collect_chats.config import CollectChatsConfig
from stages.collect_chats.questions import Questions
from stages.collect_chats.reference import ApiEntry
from stages.collect_chats.sandbox import SessionOutcome, run_sessions

MAX_SETUP = 6  # statements shown before the one that is asked about
BUILTINS = frozenset(dir(builtins))
DIRECTIVE = re.compile(r"[ \t]*#[ \t]*doctest:.*$", re.MULTILINE)
PARSER = doctest.DocTestParser()


@dataclass(frozen=True)
class DoctestSession:
    """A self-contained session.

    Attributes:
        statements: The statements in order.
        expected: What the last statement prints, according to the page.
    """

    statements: tuple[str, ...]
    expected: str

    @property
    def code(self) -> str:
        """The statements as they are typed at the prompt."""
        return "\n".join(_typed(statement) for statement in self.statements)


def _typed(statement: str) -> str:
    """Return a statement with the prompts in front of its lines."""
    return ">>> " + statement.rstrip("\n").replace("\n", "\n... ")


def of_entries(
    entries: list[ApiEntry], config: CollectChatsConfig, questions: Questions
) -> Iterator[Chat | RejectedChat]:
    """Yield the chats of all examples of a page.

    One sandbox runs all of them, each in a separate process.
    """
    exported = set()
    for entry in entries:
        if entry.is_public and entry.kind != "module":
            exported.add(entry.name.removeprefix(f"{entry.module}."))
    found: list[DoctestSession] = []
    for entry in entries:
        for candidate in sessions(entry, exported):
            if isinstance(candidate, RejectedChat):
                yield candidate
            else:
                found.append(candidate)
    statements = [session.statements for session in found]
    outcomes = run_sessions(statements, config.doctest.seconds, config.doctest.packages)
    for session, outcome in zip(found, outcomes, strict=True):
        yield _verified(session, outcome, config, questions)


def _verified(
    session: DoctestSession,
    outcome: SessionOutcome,
    config: CollectChatsConfig,
    questions: Questions,
) -> Chat | RejectedChat:
    """Return the chat of a session, if the session printed what the page says."""
    if outcome.not_run:
        detail = "examples cannot be confined on this system"
        return RejectedChat("doctest", session.code, "not_run", detail)
    if outcome.output is None:
        # Keep only the kind of the error. Messages hold memory addresses and times, and the same
        # input must give the same bytes.
        detail = str(outcome.error).split(":")[0]
        return RejectedChat("doctest", session.code, "example_fails", detail)
    if _without_trailing_spaces(outcome.output) != _without_trailing_spaces(session.expected):
        detail = f"it does not print {session.expected!r}"
        return RejectedChat("doctest", session.code, "output_differs", detail)
    question = questions.fill("doctest", code=session.code)
    answer = session.expected.rstrip()
    return checked_chat("doctest", question, answer, config, min_chars=1)


def sessions(entry: ApiEntry, exported: set[str]) -> Iterator[DoctestSession | RejectedChat]:
    """Yield every example that prints something, made self-contained.

    Args:
        entry: The entry whose description holds the examples.
        exported: The public names of the entry's module.

    Yields:
        The example with the silent statements and the imports that it needs.
    """
    if ">>>" not in entry.text:
        return
    try:
        examples = PARSER.get_examples(entry.text)
    except ValueError as error:
        yield RejectedChat("doctest", entry.name, "malformed_example", str(error))
        return
    silent: list[str] = []
    for example in examples:
        source = DIRECTIVE.sub("", example.source).rstrip() + "\n"
        if example.want:
            yield _session(example, source, silent, entry.module, exported)
        else:
            silent.append(source)


def _session(
    example: doctest.Example, source: str, silent: list[str], module: str, exported: set[str]
) -> DoctestSession | RejectedChat:
    """Return the session of one example that prints something.

    Args:
        example: The example as the page shows it.
        source: Its statement, without directives of doctest.
        silent: The statements before it that print nothing.
        module: The module of the page; empty for builtins.
        exported: The public names of the module.
    """
    if example.exc_msg is not None:
        detail = "it shows an exception, not an output"
        return RejectedChat("doctest", source, "raises", detail)
    if example.options.get(doctest.ELLIPSIS) and "..." in example.want:
        detail = "the page shows only a part of the output"
        return RejectedChat("doctest", source, "inexact", detail)
    setup = _needed(silent, source)
    if len(setup) > MAX_SETUP:
        detail = f"{len(setup)} statements come before it, at most {MAX_SETUP} are shown"
        return RejectedChat("doctest", source, "long_setup", detail)
    statements = [*setup, source]
    imports = _imports(statements, module, exported)
    return DoctestSession((*imports, *statements), example.want)


def _needed(silent: list[str], source: str) -> list[str]:
    """Return the silent statements that share names with `source`, directly or through others."""
    used = _names(source).used
    needed: list[str] = []
    for statement in reversed(silent):
        names = _names(statement)
        if statement not in needed and (names.bound | names.used) & used:
            needed.insert(0, statement)
            used |= names.used
    return needed


def _imports(statements: Sequence[str], module: str, exported: set[str]) -> list[str]:
    """Return imports of the page's module, for the names that the session uses but never binds."""
    if not module:
        return []
    bound: set[str] = set()
    used: set[str] = set()
    for statement in statements:
        names = _names(statement)
        bound |= names.bound
        used |= names.used
    free = used - bound
    imports = []
    if module.split(".")[0] in free:
        imports.append(f"import {module}")
    members = sorted((free & exported) - BUILTINS)
    if members:
        imports.append(f"from {module} import {', '.join(members)}")
    return imports


@dataclass(frozen=True)
class StatementNames:
    """The names that a statement binds, and those that it uses (builtins left out)."""

    bound: set[str]
    used: set[str]


def _names(statement: str) -> StatementNames:
    """Return the names in a statement; none if it is not Python."""
    bound: set[str] = set()
    used: set[str] = set()
    try:
        tree = ast.parse(statement)
    except (SyntaxError, ValueError):
        return StatementNames(bound, used)
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            names = used if isinstance(node.ctx, ast.Load) else bound
            names.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                name = alias.asname or alias.name
                bound.add(name.split(".")[0])
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            bound.add(node.name)
    return StatementNames(bound, used - BUILTINS)


def _without_trailing_spaces(text: str) -> str:
    """Drop spaces at the ends of lines: they do not survive HTML."""
    lines = text.rstrip().splitlines()
    return "\n".join(line.rstrip() for line in lines)
