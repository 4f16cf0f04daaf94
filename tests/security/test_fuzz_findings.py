"""What fuzzing has found, as small files: each is one short error."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from data_contracts import ArtifactError, ConfigError
from data_contracts.tensor_files import gguf_problem
from flows import recipe
from stages.tokenizer_files import special_tokens


@pytest.mark.parametrize("base", ["{a: b}", "[1, 2]", "7", "x" * 20_000])
def test_a_recipe_that_extends_no_recipe_is_a_short_error(tmp_path: Path, base: str):
    path = tmp_path / "recipe.yaml"
    path.write_text(f"extends: {base}\n")
    with pytest.raises(ConfigError) as error:
        recipe.load(str(path))
    assert len(str(error.value)) < 1000


def test_a_special_token_that_is_half_of_a_character_is_an_error(tmp_path: Path):
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"bos_token": "\ud800<s>"}))
    with pytest.raises(ArtifactError, match=r"its tokenizer_config\.json cannot be used"):
        special_tokens(tmp_path, "checkpoint x")


def test_the_name_of_a_gguf_setting_is_not_repeated_at_any_length(tmp_path: Path):
    name = b"9" * 5000
    setting = struct.pack("<Q", len(name)) + name + struct.pack("<IB", 7, 1)
    path = tmp_path / "x.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 2) + setting + setting)
    assert len(gguf_problem(path)) < 400
