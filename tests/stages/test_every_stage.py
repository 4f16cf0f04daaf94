"""Over the map: every stage runs alone on a small golden input.

It keeps its contract, gives the same bytes twice, and refuses what is wrong.

`tests/golden/<stage>.py` has `inputs(publish)`, `SETTINGS`, and `BAD`: settings that are refused,
each with the message.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

import pytest

import stages
from data_contracts import (
    Artifact,
    ArtifactError,
    ConfigError,
    GroundupError,
    InputError,
    Store,
    current,
)
from stages.run import run_stage

HEAVY = (
    "clean",
    "pretrain",
    "sft",
    "collect_preferences",
    "dpo",
    "evaluate",
    "export_gguf",
    "describe",
)
READ_DATA = [
    stage.name for stage in stages.STAGES if any(not wanted.optional for wanted in stage.consumes)
]
WHOLE = ("tokenizer", "checkpoint")  # artifact types that cannot be empty


def marked(names: Any) -> list[Any]:
    """The names as parameters. Slow are those that load a model, start a process or draw."""
    return [pytest.param(name, marks=[pytest.mark.slow] if name in HEAVY else []) for name in names]


def golden(name: str) -> ModuleType:
    return import_module(f"tests.golden.{name}")


def made(
    store: Store, name: str, settings: dict[str, Any], inputs: dict[str, Artifact]
) -> Artifact:
    stage = stages.stage(name)
    artifact, _ = run_stage(store, stage, stage.config_class.parse(settings, name), inputs)
    return artifact


@pytest.mark.parametrize("name", marked(stages.NAMES))
def test_a_stage_alone_keeps_its_contract_and_gives_the_same_bytes_in_another_store(
    name, store, publish, tmp_path
):
    inputs = golden(name).inputs(publish)
    one = made(store, name, golden(name).SETTINGS, inputs)
    one.verify()
    one.check()
    assert (one.artifact_type, one.manifest.stage) == (stages.stage(name).produces, name)
    assert {output: ref.id for output, ref in one.manifest.inputs.items()} == {
        output: artifact.id for output, artifact in inputs.items()
    }
    assert one.manifest.facts["figures"], "a stage reports what it found"
    other = made(Store(tmp_path / "other"), name, golden(name).SETTINGS, inputs)
    assert other.id == one.id
    assert [(f.path, f.sha256) for f in other.manifest.files] == [
        (f.path, f.sha256) for f in one.manifest.files
    ]
    assert other.manifest.facts["rejected"] == one.manifest.facts["rejected"]
    assert list(other.manifest.facts["figures"]) == list(one.manifest.facts["figures"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [row.name for row in stages.STAGES if "workers" in row.config_class.model_fields]
)
def test_the_number_of_workers_changes_nothing(name, store, publish, tmp_path):
    inputs = golden(name).inputs(publish)
    found = [
        made(Store(tmp_path / str(n)), name, golden(name).SETTINGS | {"workers": n}, inputs)
        for n in (1, 3)
    ]
    assert found[0].id == found[1].id
    assert found[0].manifest.content == found[1].manifest.content


@pytest.mark.parametrize("name", marked(stages.NAMES))
def test_bad_settings_are_one_named_error_each_and_publish_nothing(name, store, publish):
    module = golden(name)
    assert module.BAD, f"tests/golden/{name}.py names no bad settings"
    inputs = module.inputs(publish)
    before = store.ids()
    for settings, message in module.BAD:
        with pytest.raises(GroundupError) as error:
            made(store, name, module.SETTINGS | settings, inputs)
        assert re.search(message, str(error.value)), str(error.value)
        assert error.value.fix
    assert store.ids() == before


@pytest.mark.parametrize("name", stages.NAMES)
def test_an_unknown_setting_is_refused_with_those_that_there_are(name):
    config = stages.stage(name).config_class
    first = next(iter(config.model_fields))
    with pytest.raises(
        ConfigError, match=rf"{name}\.{first}x is not a setting; did you mean '{first}'"
    ):
        config.parse({first + "x": 1}, name)


@pytest.mark.parametrize("name", marked(READ_DATA))
def test_input_without_rows_is_one_named_error_and_publishes_nothing(name, store, publish):
    inputs = golden(name).inputs(publish)
    inputs |= {
        output: emptied(artifact, publish)
        for output, artifact in inputs.items()
        if artifact.artifact_type not in WHOLE
    }
    if all(artifact.artifact_type in WHOLE for artifact in inputs.values()):
        pytest.skip(f"{name} reads no rows: {', '.join(WHOLE)} are never empty")
    before = store.ids()
    with pytest.raises(InputError) as error:
        made(store, name, golden(name).SETTINGS, inputs)
    assert any(error.value.what.startswith(str(artifact)) for artifact in inputs.values()), (
        error.value.what
    )
    assert re.match(r"0 |holds no ", error.value.why), error.value.why
    assert error.value.fix
    assert store.ids() == before


def emptied(artifact: Artifact, publish: Callable[..., Artifact]) -> Artifact:
    """An artifact of the same artifact type with the same files and no row."""
    tables = tuple(f"{table}/" for table in current(artifact.artifact_type).tables)
    files = {
        entry.path: (artifact.path / entry.path).read_bytes()
        for entry in artifact.manifest.files
        if not entry.path.startswith(tables)
    }
    return publish(artifact.artifact_type, files=files)


@pytest.mark.parametrize("name", marked(READ_DATA))
def test_a_damaged_input_is_found_before_any_work(name, store, publish):
    inputs = golden(name).inputs(publish)
    for artifact in inputs.values():
        path = artifact.path / artifact.manifest.files[0].path
        data = path.read_bytes()
        path.write_bytes(data[:-1])
        with pytest.raises(ArtifactError, match=re.escape(artifact.manifest.files[0].path)):
            made(store, name, golden(name).SETTINGS, inputs)
        path.write_bytes(data)


@pytest.mark.parametrize("name", READ_DATA)
def test_a_missing_input_is_one_error_with_the_command_that_gives_it(name, store):
    with pytest.raises(
        ConfigError, match=rf"stage {name}: needs \w+\n  To repair: groundup stage {name} \w+=NAME/"
    ):
        made(store, name, {}, {})
