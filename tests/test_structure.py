"""Map, folders and contracts agree. Stage folders have the same files. Code is short."""

from __future__ import annotations

import ast
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

import stages
from data_contracts import current
from data_contracts.contract import SHIPPED

REPOSITORY = Path(stages.__file__).parents[1]
PACKAGES = ["data_contracts", "stages", "flows", "infra", "tests"]
SHARED = {"execution", "llama_cpp", "lm", "reporting", "text"}  # packages that several stages use
MOST_LINES, MOST_FUNCTION_LINES, MOST_README_LINES = 400, 60, 40
MOST_FIELDS = 12  # of a class of settings
# Classes with more fields: their keys are in recipes and on command lines, and each bears on the
# same subject. They do not grow.
LARGE_SETTINGS = {"ModelShape": 13}

SOURCES = sorted(path for package in PACKAGES for path in (REPOSITORY / package).rglob("*.py"))
every_stage = pytest.mark.parametrize("name", stages.NAMES)


def test_rows_of_the_map_folders_of_stages_and_contracts_are_the_same_set():
    folders = {path.parent.name for path in (REPOSITORY / "stages").glob("*/__init__.py")} - SHARED
    assert folders == set(stages.NAMES)
    assert set(SHIPPED.artifact_types) == {stage.produces for stage in stages.STAGES}


def test_the_map_is_in_order_every_input_is_made_by_an_earlier_row():
    made = set()
    for stage in stages.STAGES:
        for wanted in stage.consumes:
            assert (wanted.output, wanted.artifact_type) in made, (
                f"{stage.name} consumes {wanted.output}, which no earlier stage makes"
            )
        made.add((stage.output, stage.produces))
    assert len(made) == len(stages.STAGES), "two stages make the same output"


def test_stages_read_the_major_version_that_stages_write():
    for stage in stages.STAGES:
        for wanted in stage.consumes:
            assert wanted.major == current(wanted.artifact_type).version.major, (
                f"{stage.name} reads an old {wanted.artifact_type}"
            )


@every_stage
def test_a_stage_folder_has_its_four_files_and_a_short_guide(name):
    folder = REPOSITORY / "stages" / name
    for file in ("__init__.py", "config.py", "stage.py", "README.md"):
        assert (folder / file).is_file(), f"{name} has no {file}"
    assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text("utf-8"))), (
        f"{name} does not say what it is"
    )
    guide = (folder / "README.md").read_text("utf-8")
    assert len(guide.splitlines()) <= MOST_README_LINES
    assert f"groundup stage {name}" in guide, "how to run it alone"
    mentioned = {
        word for code in re.findall(r"`[^`\n]+`|\w+=", guide) for word in re.findall(r"\w+", code)
    }
    missing = [
        field for field in stages.stage(name).config_class.model_fields if field not in mentioned
    ]
    assert missing == [], "knobs that the guide does not mention"


@every_stage
def test_a_stage_is_one_function_of_its_config_its_inputs_a_draft_and_a_report(name):
    stage = stages.stage(name)
    parameters = inspect.signature(stage.function).parameters
    assert next(iter(parameters)) == "config"
    optional = {wanted.name for wanted in stage.consumes if wanted.optional}
    given = set(parameters) - {"config", "out", "report"}
    assert given == {wanted.name for wanted in stage.consumes} or any(
        p.kind is p.VAR_KEYWORD for p in parameters.values()
    )
    assert {"out", "report"} <= set(parameters)
    assert all(parameters[n].default is None for n in optional & given)
    assert stage.function.__doc__ or sys.modules[stage.function.__module__].__doc__


def fields(model: type[BaseModel], where: str) -> Iterator[tuple[str, FieldInfo]]:
    """Every field that a person can set, those of groups included.

    A tag has one value, and so is no choice.
    """
    for name, field in model.model_fields.items():
        if get_origin(field.annotation) is Literal and len(get_args(field.annotation)) == 1:
            continue
        yield f"{where}.{name}", field
        for inner in models_in(field.annotation):
            yield from fields(inner, f"{where}.{name}")


def test_classes_of_settings_have_few_fields():
    classes = {name: len(model.model_fields) for name, model in settings_classes().items()}
    large = {name: count for name, count in classes.items() if count > MOST_FIELDS}
    assert large == LARGE_SETTINGS


def settings_classes() -> dict[str, type[BaseModel]]:
    """Every class of settings of every stage by its name, those of groups included."""
    found: dict[str, type[BaseModel]] = {}
    waiting: list[type[BaseModel]] = [stages.stage(name).config_class for name in stages.NAMES]
    while waiting:
        model = waiting.pop()
        assert found.setdefault(model.__name__, model) is model, "two classes have one name"
        for field in model.model_fields.values():
            waiting += [
                inner for inner in models_in(field.annotation) if inner not in found.values()
            ]
    return found


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from models_in(inner)


@every_stage
def test_the_description_of_a_setting_is_one_phrase_without_a_full_stop(name):
    described = fields(stages.stage(name).config_class, name)
    assert [
        (where, field.description)
        for where, field in described
        if re.search(r"\.$|(?<!et al)\. [A-Z0-9]", field.description or "")
    ] == []


@every_stage
def test_settings_are_frozen_few_described_and_bounded(name):
    config = stages.stage(name).config_class
    assert config.__name__ == "".join(part.capitalize() for part in name.split("_")) + "Config"
    assert config.model_config["frozen"]
    assert config.model_config["extra"] == "forbid"
    found = list(fields(config, name))
    assert [where for where, field in found if not field.description] == [], (
        "settings without a description"
    )
    numbers = [
        (where, field)
        for where, field in found
        if {int, float} & {field.annotation, *get_args(field.annotation)}
    ]
    bounded = ("ge", "gt", "le", "lt", "multiple_of")
    assert [
        where
        for where, field in numbers
        if not any(hasattr(rule, bound) for rule in field.metadata for bound in bounded)
    ] == []


@every_stage
def test_settings_have_laptop_defaults(name):
    config = stages.stage(name).config_class
    required = [where for where, field in config.model_fields.items() if field.is_required()]
    assert required == [] or name == "crawl", (
        "a stage runs with no setting given; only crawl must be given where to begin"
    )
    if not required:
        assert config.parse({}, name)


IMPORTS = """
import json, sys
heavy = ("torch", "prefect", "transformers", "lm_eval", "datasets", "matplotlib", "scipy")
found = {}
for module in sys.argv[1:]:
    __import__(module)
    is_heavy = lambda name: name.partition(".")[0] in heavy or name.endswith(".stage")
    found[module] = [name for name in sys.modules if is_heavy(name)]
print(json.dumps(found))
"""


@cache
def loaded() -> dict[str, list[str]]:
    modules = ["data_contracts", "stages", *(f"stages.{name}.config" for name in stages.NAMES)]
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS, *modules],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_map_is_readable_without_torch_prefect_or_any_stage():
    assert loaded()["stages"] == []


@every_stage
def test_settings_are_readable_without_torch_and_without_their_stage(name):
    assert loaded()[f"stages.{name}.config"] == []


def imported(tree: ast.AST) -> set[str]:
    """Dotted names that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.slow
def test_the_rules_of_imports_hold():
    done = subprocess.run(
        [sys.executable, "-m", "tests.import_rules"],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_no_file_or_folder_is_a_drawer_for_anything():
    drawers = {
        "utils",
        "util",
        "common",
        "helpers",
        "helper",
        "misc",
        "shared",
        "tools",
        "lib",
        "core",
        "base",
    }
    assert [
        str(path.relative_to(REPOSITORY))
        for path in SOURCES
        if {path.stem, *path.relative_to(REPOSITORY).parts[:-1]} & drawers
    ] == []


def test_files_are_short_enough_to_be_read():
    lengths = {
        str(path.relative_to(REPOSITORY)): len(path.read_text("utf-8").splitlines())
        for path in SOURCES
    }
    assert {path: lines for path, lines in lengths.items() if lines > MOST_LINES} == {}


def test_functions_are_short_enough_to_be_read():
    lengths = {
        f"{path}: {function.name}": function.end_lineno - function.lineno + 1
        for path, tree in trees().items()
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {name: lines for name, lines in lengths.items() if lines > MOST_FUNCTION_LINES} == {}


@cache
def trees() -> dict[str, ast.Module]:
    """The tree of every file."""
    return {
        str(path.relative_to(REPOSITORY)): ast.parse(path.read_text("utf-8")) for path in SOURCES
    }


def parsed() -> dict[str, ast.Module]:
    """The tree of every file but the tests."""
    return {path: tree for path, tree in trees().items() if not path.startswith("tests/")}


def test_every_module_says_what_it_is():
    assert [path for path, tree in parsed().items() if not ast.get_docstring(tree)] == []


def unpickles(tree: ast.AST) -> bool:
    """Whether a file names a pickler: in an import, in a call, or as NumPy's allow_pickle."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    names = (
        imported(tree)
        | {ast.unparse(call.func) for call in calls}
        | {keyword.arg for call in calls for keyword in call.keywords}
    )
    return bool(names & {"pickle", "dill", "joblib", "torch.load", "torch.save", "allow_pickle"})


def test_no_pickle_is_read_or_written_anywhere():
    assert [path for path, tree in parsed().items() if unpickles(tree)] == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from torch import load",
        "torch.save(x, f)",
        "np.load(f, allow_pickle=True)",
    ],
)
def test_pickle_is_found_under_its_other_names(source):
    assert unpickles(ast.parse(source))
    assert not unpickles(
        ast.parse("import torch\nnp.load(f)\nsafetensors.torch.save(x)\nset_by_load(torch)")
    )


@every_stage
def test_every_stage_has_a_golden_input(name):
    assert (REPOSITORY / "tests" / "golden" / f"{name}.py").is_file()
