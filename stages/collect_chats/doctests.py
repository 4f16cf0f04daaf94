"""Examples at the Python prompt in descriptions → "what does this print?" chats, each verified by running it."""

from __future__ import annotations

import ast
import builtins
import doctest
import re
from collections.abc import Iterator
from dataclasses import dataclass

from stages.collect_chats.candidates import Chat, Refused, checked
from stages.collect_chats.config import CollectChatsConfig
from stages.collect_chats.questions import Questions
from stages.collect_chats.reference import Entry
from stages.collect_chats.sandbox import run_sessions

MAX_SETUP = 6  # statements shown before the one that is asked about
BUILTINS = frozenset(dir(builtins))
DIRECTIVE = re.compile(r"[ \t]*#[ \t]*doctest:.*$", re.MULTILINE)
PARSER = doctest.DocTestParser()


@dataclass(frozen=True)
class Session:
    """A self-contained session and what its last statement should print, as the page says."""

    statements: tuple[str, ...]
    wanted: str

    @property
    def code(self) -> str:
        """As typed at the prompt."""
        shown = [
            ">>> " + statement.rstrip("\n").replace("\n", "\n... ") for statement in self.statements
        ]
        return "\n".join(shown)


def of_entries(
    entries: list[Entry], config: CollectChatsConfig, questions: Questions
) -> Iterator[Chat | Refused]:
    """Chats of all examples on the page; all are run in one sandbox, each in a process of its own."""
    exported = {
        entry.name.removeprefix(f"{entry.module}.")
        for entry in entries
        if entry.public and entry.kind != "module"
    }
    found: list[Session] = []
    for entry in entries:
        for one in sessions(entry, exported):
            if isinstance(one, Refused):
                yield one
            else:
                found.append(one)
    outcomes = run_sessions(
        [session.statements for session in found], config.doctest.seconds, config.doctest.packages
    )
    for session, outcome in zip(found, outcomes, strict=True):
        if outcome.not_run:
            yield Refused(
                "doctest", session.code, "not_run", "examples cannot be confined on this system"
            )
        elif outcome.output is None:
            # no more than the kind of error: messages hold addresses and times, and the same input must give the same bytes
            yield Refused(
                "doctest", session.code, "example_fails", str(outcome.error).split(":")[0]
            )
        elif _plain(outcome.output) != _plain(session.wanted):
            yield Refused(
                "doctest", session.code, "output_differs", f"it does not print {session.wanted!r}"
            )
        else:
            yield checked(
                "doctest",
                questions.put("doctest", code=session.code),
                session.wanted.rstrip(),
                config,
                min_chars=1,
            )


def sessions(entry: Entry, exported: set[str]) -> Iterator[Session | Refused]:
    """Every example that prints something, with the silent statements before it and the imports it needs."""
    if ">>>" not in entry.text:
        return
    try:
        examples = PARSER.get_examples(entry.text)
    except ValueError as error:
        yield Refused("doctest", entry.name, "malformed_example", str(error))
        return
    silent: list[str] = []
    for example in examples:
        source = _without_directive(example.source)
        if not example.want:
            silent.append(source)
            continue
        if example.exc_msg is not None:
            yield Refused("doctest", source, "raises", "it shows an exception, not an output")
        elif example.options.get(doctest.ELLIPSIS) and "..." in example.want:
            yield Refused("doctest", source, "inexact", "the page shows only a part of the output")
        elif len(setup := _needed(silent, source)) > MAX_SETUP:
            yield Refused(
                "doctest",
                source,
                "long_setup",
                f"{len(setup)} statements come before it, at most {MAX_SETUP} are shown",
            )
        else:
            statements = (*setup, source)
            yield Session(
                (*_imports(statements, entry.module, exported), *statements), example.want
            )


def _needed(silent: list[str], source: str) -> list[str]:
    """Those of the statements before `source` that have to do, directly or through others, with the names it uses."""
    used = _names(source).used
    kept: list[str] = []
    for statement in reversed(silent):
        names = _names(statement)
        if statement not in kept and (names.bound | names.used) & used:
            kept.insert(0, statement)
            used |= names.used
    return kept


def _imports(statements: tuple[str, ...], module: str, exported: set[str]) -> tuple[str, ...]:
    """The import that makes the names of the page's module known, if the session uses any without importing them."""
    names = [_names(statement) for statement in statements]
    free = set().union(*(one.used for one in names)) - set().union(*(one.bound for one in names))
    from_module = sorted((free & exported) - BUILTINS) if module else []
    lines = [f"import {module}"] if module and module.split(".")[0] in free else []
    return (
        (*lines, f"from {module} import {', '.join(from_module)}") if from_module else tuple(lines)
    )


@dataclass(frozen=True)
class Names:
    bound: set[str]
    used: set[str]


def _names(statement: str) -> Names:
    """Names that a statement binds and uses; none if it is not Python."""
    bound: set[str] = set()
    used: set[str] = set()
    try:
        tree = ast.parse(statement)
    except (SyntaxError, ValueError):
        return Names(bound, used)
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            (used if isinstance(node.ctx, ast.Load) else bound).add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            bound |= {(name.asname or name.name).split(".")[0] for name in node.names}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            bound.add(node.name)
    return Names(bound, used - BUILTINS)


def _without_directive(source: str) -> str:
    return DIRECTIVE.sub("", source).rstrip() + "\n"


def _plain(text: str) -> str:
    """Spaces at line ends do not survive the way from a docstring through HTML."""
    return "\n".join(line.rstrip() for line in text.rstrip().splitlines())
