"""A pattern in a setting may backtrack for longer than anybody lives; a search has a time limit."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time

import pytest

from data_contracts import InputError
from stages import config
from stages.config import any_found
from tests.stages.crawl.conftest import site, source

__all__ = ["site", "source"]  # fixtures

SLOW = "(a|a)*$"
TEXT = "a" * 5000 + "b"


@pytest.fixture
def soon(monkeypatch):
    monkeypatch.setattr(config, "MAX_SEARCH_SECONDS", 0.1)


def test_a_pattern_that_backtracks_is_one_error_that_names_pattern_and_text(soon):
    with pytest.raises(InputError) as error:
        any_found(["x", SLOW], TEXT)
    assert SLOW in error.value.what
    assert "aaaaa" in error.value.why
    assert "took more than 0.1 s" in error.value.why
    assert len(str(error.value)) < 1000


def test_a_signal_ends_a_search_that_backtracks():
    program = (
        "import signal, sys\n"
        "from stages.config import any_found\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))\n"
        "print('ready', flush=True)\n"
        f"any_found([{SLOW!r}], {TEXT!r})\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=300) == 3
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_the_crawl_of_a_site_ends_at_such_a_pattern(run, site, source, soon):
    site.page("/", "/" + "a" * 1900 + "!")
    began = time.monotonic()
    with pytest.raises(InputError, match="took more than"):
        run("crawl", source(skip=[SLOW]))
    assert time.monotonic() - began < 30


SAME = [
    "a{e}",
    "foo{i}",
    "{id}",
    "x{,2}y",
    "x{}",
    "a{2}",
    "a{2,}b",
    "[{]",
    "[^{}]b",
    r"\{id}",
    r"\N{DIGIT ONE}",
    r"(?i)\.PDF$",
    r"(?x) a b",
    r"(b)/\1",
    r"(^|\.)_",
    r"^(test|idlelib)(\.|$)",
    r"a++b",
    r"(?<!a)b",
    r"\bfoo\b",
]
TEXTS = [
    "",
    "a",
    "aab",
    "ab",
    "a{e}",
    "ae",
    "foo{i}",
    "foo",
    "{id}",
    "xxy",
    "x{}",
    "1",
    "{",
    "https://example.org/a.pdf",
    "b/b",
    "os._x",
    "test.support",
    "a foo b",
]


@pytest.mark.parametrize("pattern", SAME)
def test_patterns_mean_what_they_mean_to_re(pattern):
    for text in TEXTS:
        assert any_found([pattern], text) == bool(re.search(pattern, text)), text
