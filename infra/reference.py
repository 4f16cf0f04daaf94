"""Writes docs/reference/ from the public docstrings of the three packages: `make reference`.

A function or class is listed if its package exports it, if a module of another package uses it, or
if it is a Prefect flow. What only its own package uses may change without notice. Sources are
parsed and never imported, so this needs nothing but Python, and takes a second.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from textwrap import dedent, indent

REPOSITORY = Path(__file__).parents[1]
FOLDER = REPOSITORY / "docs" / "reference"
ROOTS = {  # each with its subject, from the bottom up
    "data_contracts": "what crosses between stages",
    "stages": "how artifacts are made",
    "flows": "when things run",
}
HEAD = "| package | what is in it |\n|---|---|"
COLUMNS = 88
SECTIONS = ("Args", "Attributes", "Returns", "Yields", "Raises")
LISTS = {"Args", "Attributes", "Raises"}  # sections that consist of entries `name: text`
INTRODUCTION = """\
# Reference

What each package offers to others, and to programs of your own. These pages are generated from the
docstrings: change those, and run `make reference`. `groundup stage NAME --keys` lists the settings
of a stage. The README in its folder describes its input and its output. Terms are defined in the
[glossary](../glossary.md).
"""

Function = ast.FunctionDef | ast.AsyncFunctionDef
Definition = Function | ast.ClassDef


@dataclass
class Module:
    """A source file.

    Attributes:
        name: Dotted name. That of `stages/__init__.py` is `stages`.
        is_package: Whether the file is an `__init__.py`.
        tree: What is in it.
    """

    name: str
    is_package: bool
    tree: ast.Module

    @property
    def package(self) -> str:
        """Dotted name of the folder that it is in."""
        return self.name if self.is_package else self.name.rpartition(".")[0]

    @cached_property
    def definitions(self) -> dict[str, Definition]:
        """Its public functions and classes by name."""
        found = [node for node in self.tree.body if isinstance(node, Definition)]
        return {node.name: node for node in found if not node.name.startswith("_")}

    def is_flow(self, name: str) -> bool:
        """Return whether a definition is a flow of Prefect."""
        decorators = [ast.unparse(one) for one in self.definitions[name].decorator_list]
        return any(decorator.startswith("flow(") for decorator in decorators)

    @cached_property
    def imports(self) -> list[tuple[str, str]]:
        """Dotted name and local name of everything that it imports, anywhere in it."""
        found = []
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                home = f"{node.module}."
                found += [(home + alias.name, alias.asname or alias.name) for alias in node.names]
            elif isinstance(node, ast.Import):
                found += [(alias.name, alias.asname or alias.name) for alias in node.names]
        return found

    @cached_property
    def attributes(self) -> set[tuple[str, str]]:
        """Every `name.attribute` in it."""
        nodes = [node for node in ast.walk(self.tree) if isinstance(node, ast.Attribute)]
        return {(node.value.id, node.attr) for node in nodes if isinstance(node.value, ast.Name)}


@dataclass
class Docstring:
    """A docstring in its parts.

    Attributes:
        text: All that stands before the first section.
        sections: The text of each section by its title.
    """

    text: str
    sections: dict[str, str] = field(default_factory=dict)


def modules() -> dict[str, Module]:
    """Return every source file of the packages by its dotted name."""
    found = {}
    for root in ROOTS:
        for path in sorted((REPOSITORY / root).rglob("*.py")):
            parts = path.relative_to(REPOSITORY).with_suffix("").parts
            is_package = parts[-1] == "__init__"
            name = ".".join(parts[:-1] if is_package else parts)
            found[name] = Module(name, is_package, ast.parse(path.read_text("utf-8")))
    return found


def offered(every: dict[str, Module]) -> set[tuple[str, str]]:
    """Return (module, name) of each function and class that another package may use."""
    found = set()
    for module in every.values():
        for dotted, local in module.imports:
            for home, name in _meant(every, module, dotted, local):
                is_export = module.is_package and home.startswith(f"{module.name}.")
                if every[home].package != module.package or is_export:
                    found.add((home, name))
        found |= {(module.name, name) for name in module.definitions if module.is_flow(name)}
    return found


def _meant(
    every: dict[str, Module], module: Module, dotted: str, local: str
) -> Iterator[tuple[str, str]]:
    """Yield the definitions that one import makes available.

    These are the name itself, or what the module uses of another one.
    """
    home, _, name = dotted.rpartition(".")
    if home in every and name in every[home].definitions:
        yield home, name
    if dotted in every:
        for owner, attribute in module.attributes:
            if owner == local and attribute in every[dotted].definitions:
                yield dotted, attribute


def parse_docstring(node: Definition | ast.Module) -> Docstring:
    """Split the docstring of a definition at the titles of its sections."""
    whole = ast.get_docstring(node) or ""
    titles = re.compile(rf"^({'|'.join(SECTIONS)}):[ \t]*$\n", re.MULTILINE)
    text, *rest = titles.split(whole)
    bodies = [dedent(body).strip() for body in rest[1::2]]
    return Docstring(text.strip(), dict(zip(rest[::2], bodies, strict=True)))


def entries(section: str) -> list[str]:
    """Return the entries of a section as list items in Markdown."""
    items: list[str] = []
    for line in section.splitlines():
        name, colon, text = line.partition(":")
        if colon and not line.startswith(" "):
            items.append(f"- `{name.strip()}`: {text.strip()}")
        elif items and line.strip():
            items[-1] += f" {line.strip()}"
        elif line.strip():
            items.append(f"- {line.strip()}")
    return items


def described(docstring: Docstring) -> str:
    """Return a docstring as Markdown."""
    parts = [docstring.text]
    for title, body in docstring.sections.items():
        content = "\n".join(entries(body)) if title in LISTS else " ".join(body.split())
        separator = "\n\n" if title in LISTS else " "
        parts.append(f"**{title}:**{separator}{content}")
    return _without_tags("\n\n".join(part for part in parts if part))


def _without_tags(text: str) -> str:
    """Return the text with `<` escaped outside of code, where Markdown would take it for HTML."""
    pieces = re.split(r"(`[^`]*`)", text)
    return "".join(
        piece if piece.startswith("`") else piece.replace("<", "\\<") for piece in pieces
    )


def signature(node: Definition) -> str:
    """Return how a function or class is called; the fields of a class that has no `__init__`."""
    if isinstance(node, ast.ClassDef):
        parameters = _constructor(node)
        returned = ""
    else:
        parameters = _parameters(node.args)
        returned = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    line = f"{node.name}({', '.join(parameters)}){returned}"
    if len(line) <= COLUMNS:
        return line
    return f"{node.name}(\n" + "".join(f"    {one},\n" for one in parameters) + f"){returned}"


def _constructor(node: ast.ClassDef) -> list[str]:
    for inner in node.body:
        if isinstance(inner, ast.FunctionDef) and inner.name == "__init__":
            return _parameters(inner.args)
    fields = [inner for inner in node.body if isinstance(inner, ast.AnnAssign)]
    names = [ast.unparse(inner.target) for inner in fields]
    types = [ast.unparse(inner.annotation) for inner in fields]
    return [
        f"{name}: {annotation}"
        for name, annotation in zip(names, types, strict=True)
        if not name.startswith("_") and not annotation.startswith("ClassVar")
    ]


def _parameters(arguments: ast.arguments) -> list[str]:
    """Return the parameters one by one, as they are written, but for `self` and `cls`."""
    positional = [*arguments.posonlyargs, *arguments.args]
    padding: list[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults))
    found = [
        _parameter(one, default)
        for one, default in zip(positional, [*padding, *arguments.defaults], strict=True)
        if one.arg not in ("self", "cls")
    ]
    if arguments.vararg:
        found.append("*" + _parameter(arguments.vararg, None))
    elif arguments.kwonlyargs:
        found.append("*")
    for one, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        found.append(_parameter(one, default))
    if arguments.kwarg:
        found.append("**" + _parameter(arguments.kwarg, None))
    return found


def _parameter(one: ast.arg, default: ast.expr | None) -> str:
    annotation = f": {ast.unparse(one.annotation)}" if one.annotation else ""
    if default is None:
        return f"{one.arg}{annotation}"
    equals = " = " if annotation else "="
    return f"{one.arg}{annotation}{equals}{ast.unparse(default)}"


def methods(node: ast.ClassDef) -> Iterator[Function]:
    """Yield the public methods and properties that have a docstring."""
    for inner in node.body:
        is_public = isinstance(inner, Function) and not inner.name.startswith("_")
        if is_public and ast.get_docstring(inner):
            yield inner


def is_property(node: Function) -> bool:
    """Return whether a method is used like an attribute."""
    names = [ast.unparse(decorator) for decorator in node.decorator_list]
    return any(name.endswith("property") for name in names)


def definition(module: str, node: Definition) -> str:
    """Return the part of the page about one function or class."""
    kind = "class " if isinstance(node, ast.ClassDef) else ""
    code = f"```python\n{kind}{signature(node)}\n```"
    parts = [f"## {module}.{node.name}", code, described(parse_docstring(node))]
    if isinstance(node, ast.ClassDef):
        parts += [_method(inner) for inner in methods(node)]
    return "\n\n".join(part for part in parts if part)


def _method(node: Function) -> str:
    call = node.name if is_property(node) else " ".join(signature(node).split())
    call = call.replace("( ", "(").replace(", )", ")")
    return f"- `{call}`\n\n" + indent(described(parse_docstring(node)), "  ")


def pages() -> dict[str, str]:
    """Return the text of each page by its file name."""
    every = modules()
    by_package: dict[str, list[tuple[str, Definition]]] = {}
    for home, name in sorted(offered(every)):
        node = every[home].definitions[name]
        by_package.setdefault(every[home].package, []).append((home, node))
    written = {}
    listed: dict[str, list[str]] = {root: [] for root in ROOTS}
    for package in sorted(by_package):
        about = described(parse_docstring(every[package].tree))
        offers = _contents(package, by_package[package])
        parts = [definition(home, node) for home, node in by_package[package]]
        written[f"{package}.md"] = "\n\n".join([f"# {package}", about, offers, *parts]) + "\n"
        first_sentence = " ".join(about.partition("\n\n")[0].split())
        listed[package.split(".")[0]].append(f"| [{package}]({package}.md) | {first_sentence} |")
    index = [INTRODUCTION.strip()]
    for root, rows in listed.items():
        index.append(f"## {root}: {ROOTS[root]}\n\n" + "\n".join([HEAD, *rows]))
    return {"README.md": "\n\n".join(index) + "\n"} | written


def _contents(package: str, definitions: list[tuple[str, Definition]]) -> str:
    """Return a list of the modules of a page, each with links to what it offers."""
    links: dict[str, list[str]] = {}
    anchors: Counter[str] = Counter()
    for home, node in definitions:
        anchor = f"{home}.{node.name}".lower().replace(".", "")
        anchors[anchor] += 1
        if anchors[anchor] > 1:  # as GitHub tells equal headings apart
            anchor += f"-{anchors[anchor] - 1}"
        links.setdefault(home, []).append(f"[{node.name}](#{anchor})")
    lines = []
    for home, found in links.items():
        module = home.removeprefix(f"{package}.")
        lines.append(f"- `{module}`: {', '.join(found)}")
    return "\n".join(lines)


def main() -> None:
    """Write the pages, and remove those of packages that are gone."""
    written = pages()
    FOLDER.mkdir(exist_ok=True)
    for path in FOLDER.glob("*.md"):
        if path.name not in written:
            path.unlink()
    for name, text in written.items():
        (FOLDER / name).write_text(text, "utf-8")


if __name__ == "__main__":
    main()
