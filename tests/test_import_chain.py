"""Imports at the top of modules form no circle, and no chain of them is long."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import stages

REPOSITORY = Path(stages.__file__).parents[1]
PACKAGES = ("data_contracts", "stages", "flows")
MAX_LINKS = 12

Graph = dict[str, set[str]]


def modules() -> dict[str, Path]:
    """The file of every module of the three packages, by its dotted name."""
    found = {}
    for package in PACKAGES:
        for path in (REPOSITORY / package).rglob("*.py"):
            parts = path.relative_to(REPOSITORY).with_suffix("").parts
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


def imported_at_the_top(tree: ast.Module) -> Iterator[str]:
    """What a module imports when it is imported; imports for types alone are not such."""
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                yield f"{node.module}.{alias.name}"


def graph() -> Graph:
    """The modules of the three packages that each of them imports."""
    files = modules()
    found: Graph = {}
    for name, path in files.items():
        found[name] = set()
        for imported in imported_at_the_top(ast.parse(path.read_text("utf-8"))):
            module = imported if imported in files else imported.rpartition(".")[0]
            if module in files and module != name:
                found[name].add(module)
    return found


def longest_chain(imports: Graph) -> list[str]:
    """The longest chain of imports. Raises graphlib.CycleError for a circle."""
    chains: dict[str, list[str]] = {}
    for module in TopologicalSorter(imports).static_order():
        below = [chains[imported] for imported in imports.get(module, ())]
        chains[module] = [module, *max(below, key=len, default=[])]
    return max(chains.values(), key=len)


def test_no_chain_of_imports_is_long_and_none_is_a_circle() -> None:
    chain = longest_chain(graph())
    assert len(chain) <= MAX_LINKS, " > ".join(chain)


def test_the_longest_chain_of_a_small_graph_is_found() -> None:
    assert longest_chain({"a": {"b", "d"}, "b": {"c"}, "c": {"d"}, "d": set()}) == list("abcd")
