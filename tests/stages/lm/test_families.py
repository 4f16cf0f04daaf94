"""One row of the table is all that a family of models needs."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
import transformers
from gguf import MODEL_ARCH_NAMES

import stages
from data_contracts.checkpoint_config import CheckpointConfig
from data_contracts.checkpoint_shapes import checkpoint_shapes
from data_contracts.model_families import FAMILIES
from stages.export_gguf.architecture import sources
from tests.stages.lm import tiny

REPOSITORY = Path(stages.__file__).parents[1]
every_family = pytest.mark.parametrize("name", FAMILIES)


def strings(path: Path) -> set[str]:
    """All string constants of a file that are not in a longer text."""
    nodes = ast.walk(ast.parse(path.read_text("utf-8")))
    return {
        node.value
        for node in nodes
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def test_no_file_but_the_table_names_a_family():
    names = set(FAMILIES) | {family.transformers_class for family in FAMILIES.values()}
    packages = ("data_contracts", "stages", "flows")
    files = [path for package in packages for path in (REPOSITORY / package).rglob("*.py")]
    naming = {str(path.relative_to(REPOSITORY)) for path in files if strings(path) & names}
    assert naming == {"data_contracts/model_families.py"}


@every_family
def test_transformers_and_llama_cpp_know_each_family_under_these_names(name: str):
    family = FAMILIES[name]
    assert hasattr(transformers, family.transformers_class)
    assert family.llama_cpp_architecture in MODEL_ARCH_NAMES.values()


@pytest.mark.parametrize("shape", tiny.SHAPES.values(), ids=tiny.SHAPES)
def test_contract_model_and_export_agree_on_the_tensors_of_each_family(shape: dict):
    config = tiny.config(**shape).to_checkpoint()
    model = tiny.model(**shape)
    weights = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    shapes = checkpoint_shapes(config)
    assert shapes == weights
    exported = [name for source in sources(config) for name in source.tensors]
    assert sorted(exported) == sorted(shapes)
    assert CheckpointConfig.parse(config.to_json()) == config


@pytest.mark.slow
def test_a_new_row_is_trained_loaded_by_transformers_and_exported(tmp_path: Path):
    command = [sys.executable, "-m", "tests.stages.lm.a_new_family", str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout.splitlines()[-1])
    assert made["class"] == "MistralForCausalLM"
    assert made["kl_divergence"] < 1e-4
