"""The advice about a source that gave no document fits the kind of its files."""

from __future__ import annotations

import gzip

import pytest

from data_contracts import InputError
from tests.stages.crawl.warc_records import warc_record

pytestmark = pytest.mark.usefixtures("reads_in_this_process")

ADVICE = {
    "a record that cannot be read": ("a.warc", warc_record(b"http://["), "replace the archive"),
    "a page of the built-in server": (
        "a.warc",
        warc_record(b"http://pydoc.localhost/os.html"),
        "use a source of kind pydoc",
    ),
    "an answer that is none": (
        "a.warc",
        warc_record(body=b"HTTP/1.1 404 Not Found\r\n\r\n"),
        "answered with status 200",
    ),
    "a picture": (
        "a.warc",
        warc_record(body=b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n\r\nx"),
        "hold HTML or text",
    ),
    "a page without text": ("a.warc", warc_record(), "archives whose pages hold text"),
    "no pages": (
        "a.warc",
        warc_record().replace(b": response", b": metadata"),
        "records of type response",
    ),
    "an empty archive": ("a.warc.gz", gzip.compress(b""), "records of type response"),
    "rows without the field": ("a.jsonl", b'{"content": "x"}', "set text_field to the field"),
    "rows without text": ("a.jsonl", b'{"text": " "}', "check text_field"),
    "no rows": ("a.jsonl", b"\n", "name files that have rows"),
    "a table of no rows": ("a.csv", b"text\n", "name files that have rows"),
    "a packed file of nothing": ("a.jsonl.gz", b"", "name files that have rows"),
    "a text of blanks": ("a.txt", b" \n", "name files that hold text"),
}


@pytest.mark.parametrize("case", ADVICE)
def test_files_that_give_nothing_are_told_with_advice_that_fits_their_kind(read, folder, case):
    name, data, wanted = ADVICE[case]
    (folder / name).write_bytes(data)
    with pytest.raises(InputError, match=r"crawl source mine: 0 documents") as error:
        read()
    assert wanted in error.value.fix
    assert "browser" not in str(error.value)
    assert ("text_field" in error.value.fix) == ("text_field" in wanted)


def test_of_several_kinds_that_advice_is_told_that_fits_the_reason(read, folder):
    (folder / "a.jsonl").write_bytes(b"")
    (folder / "a.warc").write_bytes(warc_record(b"http://pydoc.localhost/os.html"))
    with pytest.raises(InputError, match="0 documents") as error:
        read()
    assert (
        error.value.fix
        == "for Python's documentation use a source of kind pydoc; then run it again"
    )
