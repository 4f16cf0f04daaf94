"""Any executor that keeps the interface gives the same bytes, and a message holds no path."""

from __future__ import annotations

import pickle
import pickletools
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import stages
from data_contracts import Draft, GroundupError, Store
from stages.dedup import stage as dedup_stage
from stages.execution.processes import InProcess, Processes, local
from stages.execution.shards import Executor, map_shards
from stages.pack import stage as pack_stage
from stages.run import run_stage
from tests.conftest import publisher
from tests.stages.execution.fresh import FreshInterpreters

SPREAD = ("clean", "dedup", "collect_evals", "decontaminate", "pack", "collect_chats")


@pytest.fixture
def fresh(tmp_path: Path) -> FreshInterpreters:
    home = tmp_path / "home"
    home.mkdir()
    return FreshInterpreters(home)


@pytest.fixture(params=["in this process", "in processes", "in fresh interpreters"])
def executor(request: pytest.FixtureRequest, fresh: FreshInterpreters) -> Executor:
    executors: dict[str, Executor] = {
        "in this process": InProcess(),
        "in processes": Processes(2),
        "in fresh interpreters": fresh,
    }
    return executors[request.param]


def made(folder: Path, name: str, workers: int) -> Any:
    """The manifest of what a stage makes of its golden input in a store of its own."""
    store = Store(folder)
    golden = import_module(f"tests.golden.{name}")
    stage = stages.stage(name)
    config = stage.config_class.parse(golden.SETTINGS | {"workers": workers}, name)
    artifact, _ = run_stage(store, stage, config, golden.inputs(publisher(store)))
    return artifact.manifest


@pytest.fixture
def many_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small inputs are spread like large ones."""
    monkeypatch.setattr(pack_stage, "ALONE_BYTES", 0)
    monkeypatch.setattr(dedup_stage, "BUCKET_BYTES", 20_000)


@pytest.mark.slow
@pytest.mark.parametrize("name", SPREAD)
def test_a_worker_with_nothing_but_the_message_makes_the_same_bytes(
    name: str,
    fresh: FreshInterpreters,
    many_shards: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    alone = made(tmp_path / "alone", name, 1)
    monkeypatch.setattr(Processes, "start", lambda _, work: fresh.start(work))
    spread = made(tmp_path / "spread", name, 2)
    assert (spread.content, spread.rows, spread.facts) == (alone.content, alone.rows, alone.facts)
    assert fresh.messages
    for message in fresh.messages:
        assert set(absolute_paths(message)) <= {str(tmp_path / "spread")}


def absolute_paths(message: bytes) -> Iterator[str]:
    """The texts in a pickled message that are paths of a machine."""
    for _, argument, _ in pickletools.genops(message):
        if isinstance(argument, str) and argument.startswith("/"):
            yield argument


@pytest.mark.slow
def test_results_come_in_order_and_few_shards_are_drawn_ahead(executor: Executor) -> None:
    drawn: list[int] = []

    def shards() -> Iterator[int]:
        for number in range(12):
            drawn.append(number)
            yield -number

    results = map_shards(abs, shards(), executor)
    assert next(results) == 0
    assert len(drawn) <= 4
    assert list(results) == list(range(1, 12))


@pytest.mark.slow
def test_the_first_error_in_order_is_raised_and_names_its_shard(executor: Executor) -> None:
    results = map_shards(int, ["0", "1", "two", "3", "four"], executor)
    with pytest.raises(ValueError, match="'two'") as error:
        list(results)
    assert error.value.__notes__ == ["This happened in shard 2."]


@pytest.mark.slow
def test_an_error_of_the_work_that_a_person_can_repair_is_raised_as_it_is(
    executor: Executor,
) -> None:
    with pytest.raises(GroundupError) as error:
        list(map_shards(refuse, [1], executor))
    assert (error.value.what, error.value.why, error.value.fix) == ("shard 1", "is odd", "skip it")
    assert not hasattr(error.value, "__notes__")


def refuse(number: int) -> None:
    raise GroundupError(f"shard {number}", "is odd", "skip it")


def test_one_worker_is_this_process_and_none_is_as_many_as_there_are_cores() -> None:
    assert local(1) == InProcess()
    assert local(3) == Processes(3)


@pytest.mark.slow
def test_the_work_is_sent_once_per_worker_and_not_with_every_shard() -> None:
    pickled: list[int] = []
    work = Work(pickled.append)
    assert list(map_shards(work, range(6), Processes(2))) == [f"done {n}" for n in range(6)]
    assert len(pickled) <= 2


class Work:
    """Work that counts how often it is pickled."""

    def __init__(self, on_pickling: Callable[[int], object]):
        self.on_pickling = on_pickling

    def __reduce__(self) -> Any:
        self.on_pickling(1)
        return Work, (abs,)

    def __call__(self, number: int) -> str:
        return f"done {number}"


def test_a_draft_and_the_shipped_contracts_are_the_same_after_pickling(tmp_path: Path) -> None:
    draft = Draft.in_folder("raw_documents", tmp_path)
    received = pickle.loads(pickle.dumps(draft))
    assert received == draft
    assert received.contracts is draft.contracts
