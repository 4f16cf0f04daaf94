"""A stage parses the tokenizer of its checkpoint once."""

from __future__ import annotations

from collections import Counter
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from stages import tokenizer_files
from stages.lm.tokenizer import ModelTokenizer
from tests.golden import sft as golden

SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "stage",
    [
        "pretrain",
        "sft",
        "dpo",
        "collect_preferences",
        pytest.param("evaluate", marks=SLOW),
        pytest.param("export_gguf", marks=SLOW),
    ],
)
def test_a_run_parses_each_tokenizer_json_once(
    stage: str, publish: Any, run: Any, monkeypatch: pytest.MonkeyPatch
):
    parsed: Counter[Path] = Counter()
    load, read = tokenizer_files.Tokenizer.from_file, tokenizer_files.read_json
    documents: Counter[Path] = Counter()

    class Counting:
        @staticmethod
        def from_file(path: str) -> Any:
            parsed[Path(path)] += 1
            return load(path)

    def counting_read(path: Path, *limits: int) -> dict[str, Any]:
        documents[path] += 1
        return read(path, *limits)

    made = import_module(f"tests.golden.{stage}")
    inputs = made.inputs(publish)
    monkeypatch.setattr(tokenizer_files, "Tokenizer", Counting)
    monkeypatch.setattr(tokenizer_files, "read_json", counting_read)
    run(stage, made.SETTINGS, **inputs)
    assert list(parsed.values()) == [1]
    assert {path.name for path in documents} == {"tokenizer.json", "tokenizer_config.json"}
    assert set(documents.values()) == {1}


def test_special_tokens_have_the_ids_that_the_files_name(publish: Any):
    tokenizer = ModelTokenizer(golden.checkpoint(publish))
    assert tokenizer.special_ids == {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}
    assert tokenizer.pad_id == 1
    assert tokenizer.special_tokens == golden.SPECIAL
