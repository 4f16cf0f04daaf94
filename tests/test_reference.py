"""docs/reference says what the docstrings say, of what one package offers to others."""

from __future__ import annotations

import ast
from textwrap import dedent

import pytest

from infra import reference
from infra.reference import Module


def test_the_pages_are_those_that_the_docstrings_give() -> None:
    stored = {path.name: path.read_text("utf-8") for path in reference.FOLDER.iterdir()}
    written = reference.pages()
    assert stored.keys() == written.keys(), "run: make reference"
    for name, text in written.items():
        assert stored[name] == text, f"docs/reference/{name} is out of date; run: make reference"


def module(name: str, source: str, is_package: bool = False) -> Module:
    return Module(name, is_package, ast.parse(dedent(source)))


@pytest.mark.parametrize(
    ("user", "source"),
    [
        ("flows.run", "from stages.lm.model import load"),
        ("flows.run", "from stages.lm import model\nmodel.load()"),
        ("flows.run", "import stages.lm.model as parts\nparts.load()"),
        ("stages.lm.training.loop", "def fit():\n    from stages.lm.model import load"),
    ],
)
def test_what_another_package_uses_is_listed_and_nothing_else(user: str, source: str) -> None:
    model = module("stages.lm.model", "def load(): ...\ndef save(): ...\ndef _own(): ...")
    every = {model.name: model, user: module(user, source)}
    assert reference.offered(every) == {("stages.lm.model", "load")}


def test_what_only_its_own_package_uses_is_not_listed_unless_the_package_exports_it() -> None:
    model = module("stages.lm.model", "def load(): ...")
    neighbour = module("stages.lm.chat", "from stages.lm.model import load")
    every = {model.name: model, neighbour.name: neighbour}
    assert reference.offered(every) == set()
    every["stages.lm"] = module("stages.lm", "from stages.lm.model import load", is_package=True)
    assert reference.offered(every) == {("stages.lm.model", "load")}


def test_a_flow_is_listed() -> None:
    flow = module("flows.whole", '@flow(name="whole")\ndef whole(): ...\ndef part(): ...')
    assert reference.offered({flow.name: flow}) == {("flows.whole", "whole")}


EXAMPLE = '''
def load(path: Path, *tables: str, rows: int = 3, strict=False) -> Table:
    """Load a file <here>, or `<there>`.

    Args:
        path: The file.
            It may be a link.
        rows: How many.

    Returns:
        The table.

    Raises:
        OSError: It cannot be read.
    """
'''


def test_signature_arguments_result_and_errors_are_shown() -> None:
    (node,) = ast.parse(EXAMPLE).body
    assert isinstance(node, ast.FunctionDef)
    assert reference.definition("files", node) == (
        "## files.load\n\n"
        "```python\n"
        "load(path: Path, *tables: str, rows: int = 3, strict=False) -> Table\n"
        "```\n\n"
        "Load a file \\<here>, or `<there>`.\n\n"
        "**Args:**\n\n"
        "- `path`: The file. It may be a link.\n"
        "- `rows`: How many.\n\n"
        "**Returns:** The table.\n\n"
        "**Raises:**\n\n"
        "- `OSError`: It cannot be read."
    )
