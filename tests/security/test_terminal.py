"""Untrusted text controls no terminal: control characters are shown, wherever it is printed."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.table import Table
from rich.text import Text
from typer.testing import CliRunner

from data_contracts import ConfigError, Store
from data_contracts.foreign_text import brief, json_text, line, pieces, shown
from flows.cli import commands as cli
from flows.cli import console, summary, tables, talk
from flows.recipe import Recipe
from tests.data_contracts import publishing
from tests.flows.conftest import REPOSITORY

UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f"
    "\u202a-\u202e\u2066-\u2069\u2028\u2029\ufeff\ud800-\udfff]"
)
ATTACKS = {
    "title": "\x1b]0;owned\x07",
    "clipboard": "\x1b]52;c;cm0gLXJmIC8=\x1b\\",
    "link": "\x1b]8;;https://evil.example\x1b\\here\x1b]8;;\x1b\\",
    "clear": "\x1b[2J\x1b[H",
    "8-bit CSI": "\x9b31m",
    "8-bit OSC": "\x9d0;owned\x9c",
    "overwrite": "good\rbad",
    "backspace": "good\b\b\b\bbad",
    "bell": "\x07",
    "bidi": "\u202egnp.exe",
    "isolate": "\u2067abc\u2069",
    "line separator": "a\u2028b",
    "tags": "a\U000e0041\U000e0042",
    "delete": "a\x7f",
    "half a pair": "\ud83d",
    "device status": "\x1b[6n",
    "DCS": "\x1bP$q q\x1b\\",
}
HOSTILE = "".join(ATTACKS.values())
MARKUP = "[bold red]x[/] [link=https://evil.example]y[/link] :warning: [/]"

any_text = st.text(st.characters(exclude_categories=()), max_size=60) | st.text(
    "\r\n\t\x1b[]0;\x07\ud83d\ude00ab\u202e", max_size=40
)


def safe(text: str) -> bool:
    return not UNSAFE.search(text)


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_what_steers_a_terminal_is_shown(attack: str) -> None:
    assert safe(shown(attack))
    assert safe(line(attack))
    assert shown(attack).isprintable()
    assert shown(attack) != attack


def test_controls_are_shown_as_escapes_that_tell_which() -> None:
    assert shown("\x1b[2J \x9b \u202e \U000e0041") == r"\x1b[2J \x9b \u202e \U000e0041"
    assert shown("a\r\nb\n\tc\rd") == "a\nb\n\tc\\rd"
    assert line("a\nb\tc") == r"a\nb\tc"


@pytest.mark.parametrize(
    "text", ["naïve 中文 ½", "می\u200cخواهم", "👩\u200d🚀", "שלום", "e\u0301", "🏳️", "नमस्ते"]
)
def test_text_of_all_scripts_stays_as_it_is(text: str) -> None:
    assert shown(text) == line(text) == text


@settings(max_examples=300, deadline=None)
@given(any_text)
def test_any_text_is_safe_when_shown_and_can_be_written(text: str) -> None:
    assert safe(shown(text))
    assert safe(line(text))
    assert "\n" not in line(text)
    shown(text).encode("utf-8")
    assert shown(shown(text)) == shown(text)


@settings(max_examples=300, deadline=None)
@given(st.lists(any_text, max_size=8))
def test_a_stream_is_shown_as_the_whole_would_be_wherever_it_is_cut(parts: list[str]) -> None:
    assert "".join(pieces(parts)) == shown("".join(parts))


def test_a_stream_is_not_kept_back_longer_than_a_character() -> None:
    stream = pieces(iter(["a", "\x1b", "]0;x", "b\r", "\nc", "\r"]))
    assert list(stream) == ["a", "\\x1b", "]0;x", "b", "\nc", "\\r"]


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        any_text,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3),
    )
)
def test_json_is_safe_to_print_and_says_the_same(value: object) -> None:
    written = json_text(json.dumps(value, indent=1, ensure_ascii=False))
    assert safe(written)
    assert json.loads(written) == json.loads(json.dumps(value))


@pytest.mark.parametrize(
    "value",
    ["x" * 10**6, 10**5000, [10**5000], {"a": HOSTILE}],
    ids=["long", "number", "list", "hostile"],
)
def test_a_value_in_an_error_is_brief_and_safe(value: object) -> None:
    assert len(brief(value)) < 1000
    assert safe(brief(value))


def test_errors_are_safe_to_print_and_what_they_are_about_is_one_line() -> None:
    error = ConfigError(f"file a\nTo repair: rm -r ~{HOSTILE}", HOSTILE, HOSTILE)
    assert safe(str(error))
    assert "\n" not in error.what


def _table() -> Table:
    table = Table(HOSTILE)
    table.add_row(HOSTILE, Text(HOSTILE))
    return table


@pytest.mark.parametrize(
    "print_it",
    [
        lambda out: out.print(HOSTILE, markup=False),
        lambda out: out.print(HOSTILE, markup=False, soft_wrap=True),
        lambda out: out.print(Text(HOSTILE), HOSTILE, sep="|", markup=False),
        lambda out: out.print(_table()),
        lambda out: out.print_json(json.dumps({"a": HOSTILE}, ensure_ascii=False)),
        lambda out: out.rule(Text(HOSTILE)),
    ],
)
def test_whatever_a_console_prints_only_its_own_colours_reach_the_terminal(print_it) -> None:
    out = console._console(to_errors=False)
    out.file, out._force_terminal, out._color_system = io.StringIO(), True, None
    out.width = 500
    print_it(out)
    output = re.sub(r"\x1b\[[0-9;]*m", "", out.file.getvalue())
    assert "owned" in output
    assert safe(output.replace("\n", ""))


def test_markup_and_emoji_codes_in_foreign_text_are_text(
    capsys: pytest.CaptureFixture[str],
) -> None:
    tables.rows([{"a": MARKUP}], False, empty="")
    with console.watched():
        console.say(MARKUP)
        with console.reporting("crawl") as report:
            report.note(MARKUP)
    output = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert output.count(MARKUP) == 3


def test_notes_of_a_stage_and_tables_are_safe(capsys: pytest.CaptureFixture[str]) -> None:
    tables.rows([{"name": HOSTILE}], False, empty="")
    tables.as_json({"name": HOSTILE})
    with console.watched():
        console.say(HOSTILE)
        with console.reporting("crawl") as report:
            report.note(HOSTILE)
    output = capsys.readouterr().out
    assert output.count("owned") >= 6  # a table wraps its lines
    assert safe(output.replace("\n", ""))


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store with an artifact whose settings and facts contain hostile text."""
    monkeypatch.setenv("GROUNDUP_HOME", str(tmp_path))
    monkeypatch.delenv("GROUNDUP_STORE", raising=False)
    text = HOSTILE.replace("\ud83d", "") + MARKUP
    facts = {
        "figures": {text: text},
        "notes": [text],
        "samples": [{text: text}],
        "rejected": {text: 1},
    }
    store = Store(tmp_path / "store")
    artifact, _ = store.publish(
        "raw_documents",
        publishing.identity("raw_documents", {}),
        {},
        {"sources": text},
        lambda _: facts,
    )
    store.point("demo", "raw_documents", artifact, made_by="x")
    store.remember_recipe("demo", text, [f"dedup.threshold={text}"])
    return store


@pytest.mark.parametrize(
    "command",
    [
        "ls",
        "ls demo",
        "ls --json",
        "show demo/raw_documents",
        "show demo/raw_documents --json",
        "verify demo/raw_documents",
        "lineage demo/raw_documents",
        "lineage demo/raw_documents --json",
        "run --preview --name demo",
    ],
)
def test_every_command_that_reads_the_store_prints_safely(hostile: Store, command: str) -> None:
    done = CliRunner().invoke(cli.app, command.split())
    output = f"{done.output}{done.exception or ''}"
    assert output
    assert safe(output.replace("\n", ""))
    assert not isinstance(done.exception, UnicodeError)


@contextmanager
def _loaded(*_: object):
    yield SimpleNamespace(context=128, full_context=128)


def _say(monkeypatch: pytest.MonkeyPatch, requests: list[object]) -> None:
    """Let every model answer with hostile text, a character at a time."""

    def answer(_: object, messages: list[dict[str, str]], **__: object):
        requests.append([dict(message) for message in messages])
        yield from HOSTILE

    monkeypatch.setattr("stages.llama_cpp.chat.loaded", _loaded)
    monkeypatch.setattr("stages.llama_cpp.chat.answer", answer)
    for module in (talk, summary):
        monkeypatch.setattr(module, "find", lambda *_: Path("x.gguf"))
    monkeypatch.setattr(talk, "_forget_oldest", lambda *_: None)


def test_the_answers_of_a_model_are_safe_and_the_model_hears_itself_as_it_spoke(
    monkeypatch, capsys, store: Store
) -> None:
    requests: list[object] = []
    _say(monkeypatch, requests)
    asked = iter(["one", "two", ""])
    monkeypatch.setattr(talk, "_read_question", lambda: next(asked))
    talk.talk(store, "demo", None, None)
    output = capsys.readouterr().out
    assert output.count("owned") == 4
    assert safe(output.replace("\n", ""))
    assert requests[1][1]["content"] == HOSTILE


def test_the_chats_at_the_end_of_a_run_are_safe(monkeypatch, capsys, store: Store) -> None:
    _say(monkeypatch, [])
    summary._chats(store, Recipe("own", "", (HOSTILE + MARKUP,), {}, {}), "demo")
    output = capsys.readouterr().out
    assert output.count("owned") == 4
    assert safe(output.replace("\n", ""))


PRINT = (
    "from flows.cli import console; console.accept_any_text(); console.out.print('ü→'); print('ü→')"
)


def test_a_terminal_that_lacks_a_character_gets_an_escape_and_no_error() -> None:
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-c", PRINT], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout == "\\xfc\\u2192\n" * 2, done.stderr
