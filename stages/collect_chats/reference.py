"""API pages (pydoc and its like, as plain text) → their modules, classes and functions with descriptions.

A page is a list of lines in which a signature stands alone on its line and its description follows until the next signature
or heading. The grammar of a signature is Python's own: what does not parse as `def` is not one.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

TITLE = re.compile(r"^\w+: (?:built-in )?(?:module|package) ([\w.]+)")
CLASS = re.compile(r"^class (\w+)(?:\(.*\))?$")
SIGNATURE = re.compile(
    r"^(?:async )?([A-Za-z_][\w.]*)\((.*)\)(?: -> .+?)?(?: method of [\w.]+ instance)?(?: from [\w.]+)?$"
)
HEADING = re.compile(
    r"^(Package Contents|Modules|Classes|Functions|Data|Version|Date|Author|Credits)$"
    r"|^(Method resolution order|(?:Methods|Class methods|Static methods|Readonly properties|Data descriptors|Data and other attributes)"
    r" (?:defined here|inherited from .+)):$"
)
DESCRIBED = (
    "Functions",
    "Methods defined here:",
    "Class methods defined here:",
    "Static methods defined here:",
)
ALIAS = re.compile(r"^\w+ = [\w.]+\(.*\)$")
SPOKEN = {"posixpath": "os.path"}  # pydoc names the module that os.path is on this system


@dataclass
class Entry:
    """One documented thing. name is qualified by module and class; signature as written, None for a module."""

    kind: Literal["module", "class", "function"]
    name: str
    module: str
    signature: str | None
    lines: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The description, without the indentation that some pages give it."""
        return textwrap.dedent("\n".join(self.lines)).strip()

    @property
    def public(self) -> bool:
        return not any(part.startswith("_") for part in self.name.split("."))


def module_of(title: str | None) -> str | None:
    """The module that a page documents, from its title; None if it is no API page."""
    found = TITLE.match(title or "")
    return found[1] if found else None


def entries(module: str, text: str) -> Iterator[Entry]:
    """Everything that the page of `module` documents, in its order; inherited members are left to the page of their class."""
    spoken = "" if module == "builtins" else SPOKEN.get(module, module)
    current: Entry | None = Entry("module", spoken or module, spoken, None)
    owner: str | None = None
    listing = False  # in names without descriptions, or in members told elsewhere
    previous = ""
    for line in _body(module, text):
        opened: Entry | None = None
        heading, made = HEADING.match(line), CLASS.match(line)
        called = None if listing or previous.startswith((">>>", "...")) else signature(line)
        previous = line.strip()
        if heading:
            owner = None if heading[1] else owner
            listing = line not in DESCRIBED
        elif made:
            owner, listing = made[1], False
            opened = Entry("class", _qualified(spoken, owner), spoken, None)
        elif (
            called
            and current
            and not current.text
            and called.split(".")[-1] == current.name.split(".")[-1].strip("_")
        ):
            if current.signature is None:
                current.signature = line
                continue  # else it says the signature once more, in other words
        elif called:
            opened = Entry("function", _qualified(spoken, owner, called), spoken, line)
        if heading or opened or ALIAS.match(line):
            if current:
                yield current
            current = opened
        elif current:
            current.lines.append(line)
    if current:
        yield current


def signature(line: str) -> str | None:
    """The name that is called, if the line is a signature and nothing else."""
    found = SIGNATURE.match(line)
    if not found:
        return None
    parameters = re.sub(
        r"<[^<>]*>", "None", found[2]
    )  # defaults without a literal, e.g. <object object>
    if parameters != "...":
        try:
            ast.parse(f"def f({parameters}): pass")
        except (SyntaxError, ValueError):  # ValueError: null bytes
            return None
    return found[1]


def shown_signature(entry: Entry) -> str | None:
    """name(parameters) without self, annotations of return and provenance; None if the parameters are not told."""
    found = SIGNATURE.match(entry.signature or "")
    if not found or found[2] == "...":
        return None
    parameters = re.sub(r"^(?:self|cls)(?:, /)?(?:, |$)", "", found[2])
    return f"{entry.name}({parameters})"


def _qualified(module: str, *parts: str | None) -> str:
    if parts[0] is None and "." in (parts[-1] or ""):
        return str(parts[-1])  # Sphinx writes whole names
    return ".".join(part for part in (module, *parts) if part)


def _body(module: str, text: str) -> Iterator[str]:
    """Lines without the page's head (interpreter, links, file, the module's name once more), blanks made plain."""
    lines = [line.replace("\xa0", " ").rstrip() for line in text.splitlines()]
    head = re.compile(
        rf"Module Reference|(?:/|\(built-in\))\S*|.*\t+index|{re.escape(module)}(?: \(version .*\))?"
    )
    start = (
        max((number for number, line in enumerate(lines[:14]) if head.fullmatch(line)), default=-1)
        + 1
    )
    for line in lines[start:]:
        yield re.sub(r"^ *\t[\t ]*", "", line)
