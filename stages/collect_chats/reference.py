"""Reads API pages (pydoc and its like, as plain text): modules, classes and functions, described.

On such a page a signature stands alone on its line. Its description follows until the next
signature or heading. The grammar of a signature is Python's own: a line that does not parse as
`def` is not a signature.
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
    r"^(?:async )?([A-Za-z_][\w.]*)\((.*)\)"
    r"(?: -> .+?)?(?: method of [\w.]+ instance)?(?: from [\w.]+)?$"
)
# Group 1 matches a heading of the module; a class ends there. Group 2 matches one of a class.
HEADING = re.compile(
    r"^(Package Contents|Modules|Classes|Functions|Data|Version|Date|Author|Credits)$"
    r"|^(Method resolution order"
    r"|(?:Methods|Class methods|Static methods|Readonly properties|Data descriptors"
    r"|Data and other attributes) (?:defined here|inherited from .+)):$"
)
DESCRIBED_HEADINGS = (
    "Functions",
    "Methods defined here:",
    "Class methods defined here:",
    "Static methods defined here:",
)
ALIAS = re.compile(r"^\w+ = [\w.]+\(.*\)$")
ANGLE_BRACKETS = re.compile(r"<[^<>]*>")
SELF = re.compile(r"^(?:self|cls)(?:, /)?(?:, |$)")
TABS = re.compile(r"^ *\t[\t ]*")
USUAL_NAMES = {"posixpath": "os.path"}  # pydoc names the module that os.path is on this system
MAX_HEAD_LINES = 14


@dataclass
class ApiEntry:
    """One documented thing.

    Attributes:
        kind: What it is.
        name: Its name, qualified by module and class.
        module: The name of its module as users write it; empty for builtins.
        signature: The signature as written; None if there is none, as for a module.
        lines: The lines of its description.
    """

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
    def is_public(self) -> bool:
        """Whether no part of the name starts with an underscore."""
        return not any(part.startswith("_") for part in self.name.split("."))


def module_of(title: str | None) -> str | None:
    """Return the module that a page documents by its title, or None if it is no API page."""
    found = TITLE.match(title or "")
    return found[1] if found else None


def entries(module: str, text: str) -> Iterator[ApiEntry]:
    """Yield everything that the page of `module` documents, in the order of the page.

    Inherited members are left out: the page of the class that defines them has them.
    """
    usual_name = "" if module == "builtins" else USUAL_NAMES.get(module, module)
    current: ApiEntry | None = ApiEntry("module", usual_name or module, usual_name, None)
    owner: str | None = None
    is_listing = False  # below a heading with bare names or with inherited members
    is_after_prompt = False  # the output of an example may look like a signature
    for line in _body(module, text):
        heading = HEADING.match(line)
        class_line = CLASS.match(line)
        callee = None if is_listing or is_after_prompt else signature(line)
        is_after_prompt = line.strip().startswith((">>>", "..."))
        opened: ApiEntry | None = None
        if heading:
            if heading[1]:
                owner = None
            is_listing = line not in DESCRIBED_HEADINGS
        elif class_line:
            owner = class_line[1]
            is_listing = False
            opened = ApiEntry("class", _qualified(usual_name, owner), usual_name, None)
        elif callee and current and _continues(current, callee):
            # The first such line is the signature. Any further one belongs to the description.
            if current.signature is None:
                current.signature = line
                continue
        elif callee:
            name = _qualified(usual_name, owner, callee)
            opened = ApiEntry("function", name, usual_name, line)
        if heading or opened or ALIAS.match(line):
            if current:
                yield current
            current = opened
        elif current:
            current.lines.append(line)
    if current:
        yield current


def _continues(entry: ApiEntry, callee: str) -> bool:
    """Return whether a signature of `callee` belongs to `entry`, still without a description."""
    short_name = entry.name.split(".")[-1].strip("_")
    return not entry.text and callee.split(".")[-1] == short_name


def signature(line: str) -> str | None:
    """Return the name that is called, if the line is a signature and nothing else."""
    found = SIGNATURE.match(line)
    if not found:
        return None
    # Defaults without a literal, such as <object object>, are no Python.
    parameters = ANGLE_BRACKETS.sub("None", found[2])
    if parameters != "...":
        try:
            ast.parse(f"def f({parameters}): pass")
        except (SyntaxError, ValueError):  # ValueError: null bytes
            return None
    return found[1]


def shown_signature(entry: ApiEntry) -> str | None:
    """Return `name(parameters)` as a caller writes it, without `self` and the return annotation.

    Returns:
        The signature, or None if the page does not show the parameters.
    """
    found = SIGNATURE.match(entry.signature or "")
    if not found or found[2] == "...":
        return None
    return f"{entry.name}({SELF.sub('', found[2])})"


def _qualified(module: str, owner: str | None, name: str | None = None) -> str:
    if owner is None and name and "." in name:
        return name  # Sphinx writes whole names
    return ".".join(part for part in (module, owner, name) if part)


def _body(module: str, text: str) -> Iterator[str]:
    """Yield the lines below the head of a page, with plain spaces and without indenting tabs.

    The head shows the interpreter, links, the file and the name of the module once more.
    """
    lines = [line.replace("\xa0", " ").rstrip() for line in text.splitlines()]
    head = re.compile(
        r"Module Reference|(?:/|\(built-in\))\S*|.*\t+index"
        rf"|{re.escape(module)}(?: \(version .*\))?"
    )
    start = 0
    for number, line in enumerate(lines[:MAX_HEAD_LINES]):
        if head.fullmatch(line):
            start = number + 1
    for line in lines[start:]:
        yield TABS.sub("", line)
