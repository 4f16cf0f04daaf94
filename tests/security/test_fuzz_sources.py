"""Pages, tables, archives and chats of any bytes give rows or one error: no traceback, no hang."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from stages.clean.config import CleanConfig
from stages.clean.guard import CleaningProcess
from stages.clean.html import PYDOC, extract
from stages.clean.page import RawPage
from stages.collect_chats.user_chats import read_chats
from stages.collect_evals import benchmarks
from stages.collect_preferences.user_pairs import read_pairs
from stages.crawl import formats
from stages.crawl.config import FilesSource
from stages.crawl.items import Document, Failure
from tests.security.fuzzing import Target, as_long_as_the_budget, edited, mangled, many, refusal
from tests.stages.clean.pages import model_path

TURNS = {
    "messages": [
        {"role": "user", "content": "Hi?"},
        {"role": "assistant", "content": "Hello, \u65e5\u672c."},
    ]
}
PAIR = {"prompt": "Hi?", "chosen": "Hello.", "rejected": "No."}
OPENING = [
    "<div>",
    "<p>",
    "<dl><dt>",
    "<dd>",
    "<pre>",
    "<table><tr><td>",
    "<script>",
    "<title>",
    "<a\nhref=",
]
CLOSING = ["</div>", ">", "<!--", "-->", "<![CDATA["]
TAGS = OPENING + CLOSING
CHARACTERS = ["\x00", "\x10", "\x1b", "\ufeff", "\ud800", "日本", "\n", " ", "a", "'", '"', "="]
MARKS = ["&#0;", "&#xD800;", "&#1114112;", "&amp", PYDOC.mark, *CHARACTERS]


def as_rows(items: Iterator[Any]) -> None:
    """Read every row, and check that its text can be encoded: half a character could not."""
    for item in items:
        texts = []
        if isinstance(item, Document):
            assert isinstance(item.body, bytes)
            texts = [item.url]
        elif isinstance(item, Failure):
            texts = [item.url, item.reason, item.detail]
        for text in texts:
            text.encode("utf-8")


def on_source(folder: Path, name: str, strategy: st.SearchStrategy[bytes]) -> Target:
    path = folder / name
    source = FilesSource(paths=[str(path)])

    def attempt(data: bytes) -> None:
        path.write_bytes(data)
        refusal(lambda: as_rows(formats.read(source, [path])))

    return strategy, attempt


def on_jsonl(folder: Path) -> Target:
    row = json.dumps({"text": "Some text.", "other": [1, None]}).encode()
    lines = st.lists(
        edited({"text": "Some text.", "other": [1]}) | st.just(row) | st.binary(max_size=40),
        max_size=5,
    )
    return on_source(folder, "rows.jsonl", mangled(b"\n".join([row] * 3)) | lines.map(b"\n".join))


def on_csv(folder: Path) -> Target:
    written = b'id,text\n1,"Some text"\n2,"with ""quotes"", and\na line"\n'
    rows = st.lists(st.text(max_size=30), max_size=6).map(
        lambda rows: "\n".join(["id,text", *rows]).encode("utf-8", "surrogatepass")
    )
    return on_source(folder, "rows.csv", mangled(written) | rows)


def on_warc(folder: Path) -> Target:
    return on_source(folder, "pages.warc", mangled(archive()) | st.binary(max_size=300))


def on_packed_warc(folder: Path) -> Target:
    packed = archive(packed=True)
    repacked = mangled(archive()).map(lambda data: gzip.compress(data, 1))
    return on_source(folder, "pages.warc.gz", mangled(packed) | repacked)


def archive(packed: bool = False) -> bytes:
    out = io.BytesIO()
    writer = WARCWriter(out, gzip=packed)
    for number in range(3):
        fields = [("Content-Type", "text/html; charset=utf-8"), ("Content-Encoding", "identity")]
        headers = StatusAndHeaders("200 OK", fields, protocol="HTTP/1.1")
        body = io.BytesIO(b"<p>A page." * 3)
        writer.write_record(
            writer.create_warc_record(
                f"https://example.org/{number}", "response", payload=body, http_headers=headers
            )
        )
    return out.getvalue()


def on_html(folder: Path) -> Target:
    pages = st.lists(st.sampled_from([*TAGS, *MARKS]) | st.text(max_size=8), max_size=60).map(
        "".join
    )

    def attempt(html: str) -> None:
        text, title = extract(html)
        for found in (text, title or ""):
            found.encode("utf-8")

    return pages.map(lambda page: page.encode("utf-8", "replace").decode()), attempt


def on_own_rows(
    folder: Path, example: dict[str, Any], read: Callable[[str], Iterator[Any]]
) -> Target:
    path = folder / "rows.jsonl"
    sound = json.dumps(example).encode()
    lines = st.lists(edited(example) | st.just(sound) | st.binary(max_size=60), max_size=5).map(
        b"\n".join
    )

    def attempt(data: bytes) -> None:
        path.write_bytes(data)
        refusal(lambda: [writable(row) for row in read(str(path))])

    return mangled(b"\n".join([sound] * 3)) | lines, attempt


def writable(row: Any) -> None:
    """Check that all text of a row can be encoded: half a character could not."""
    columns = asdict(row) if is_dataclass(row) and not isinstance(row, type) else row
    json.dumps(columns, ensure_ascii=False).encode("utf-8")


def on_chats(folder: Path) -> Target:
    return on_own_rows(folder, TURNS, read_chats)


def on_pairs(folder: Path) -> Target:
    return on_own_rows(folder, PAIR, read_pairs)


def on_questions(folder: Path) -> Target:
    question = {"question": "What is 2 + 2?", "choices": ["three", "four"], "answer": 1}
    return on_own_rows(folder, question, lambda path: iter(benchmarks.read((Path(path),))))


TARGETS = [on_jsonl, on_csv, on_warc, on_packed_warc, on_html, on_chats, on_pairs, on_questions]


@pytest.mark.slow
@pytest.mark.parametrize("of", TARGETS)
def test_no_bytes_of_a_source_raise_anything_else(
    tmp_path: Path, of: Callable[[Path], Target]
) -> None:
    many(*of(tmp_path))


@pytest.mark.long
@pytest.mark.timeout(0)
@pytest.mark.parametrize("of", TARGETS)
def test_no_bytes_of_a_source_raise_anything_else_for_as_long_as_we_look(
    tmp_path: Path, of: Callable[[Path], Target]
) -> None:
    as_long_as_the_budget(*of(tmp_path))


def on_page(guard: CleaningProcess) -> Target:
    """A page of any bytes and character set gives a row of clean; no extractor dies or hangs."""
    markup = st.lists(st.sampled_from([*TAGS, *MARKS]), max_size=60).map(
        lambda found: "".join(found).encode("utf-8", "surrogatepass")
    )
    charsets = st.sampled_from(
        [None, "utf-8", "utf-7", "utf-16", "base64", "idna", "hz", "no such", "\x00"]
    ) | st.text(max_size=8)
    kinds = st.sampled_from(["text/html", "text/plain", "text/markdown"])
    pages = st.builds(RawPage, markup | st.binary(max_size=300), kinds, charsets)

    def attempt(raw: RawPage) -> None:
        page = guard.clean(raw)
        assert page.reason not in ("timeout", "crashed"), page
        page.text.encode("utf-8")

    return pages, attempt


@pytest.fixture
def guard() -> Iterator[CleaningProcess]:
    guard = CleaningProcess(CleanConfig.parse({"rules": []}, "clean"), model_path())
    yield guard
    guard.stop()


@pytest.mark.slow
def test_no_page_kills_or_stops_the_process_that_cleans_it(guard: CleaningProcess) -> None:
    many(*on_page(guard))


@pytest.mark.long
@pytest.mark.timeout(0)
def test_no_page_kills_or_stops_the_process_that_cleans_it_for_as_long_as_we_look(
    guard: CleaningProcess,
) -> None:
    as_long_as_the_budget(*on_page(guard))
