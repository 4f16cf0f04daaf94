"""Web archives as sources."""

from __future__ import annotations

import gzip
import shutil

import pytest

from data_contracts import InputError
from tests.stages.crawl.warc_records import warc_record

pytestmark = pytest.mark.usefixtures("reads_in_this_process")


def test_an_archive_that_a_crawl_wrote_gives_the_same_documents_back(site, crawl, read, folder):
    site.page("/", "/a", "/a?x=1", head="<link rel=license href=/l>", headers={"ETag": "e"})
    site.page("/a", text="\u00e9" * 100)
    crawled = crawl()
    shutil.copy(crawled.path / "warc/site-00000.warc.gz", folder / "one.warc.gz")
    (folder / "two.warc").write_bytes(gzip.decompress((folder / "one.warc.gz").read_bytes()))
    columns = ["url", "body", "media_type", "charset", "license", "status"]
    wanted = sorted(crawled.read("documents", columns).to_pylist(), key=lambda row: row["url"])
    times = ["fetched_at", "etag", "last_modified"]
    fetches = crawled.read("fetches", times).to_pylist()
    for name in ("one.warc.gz", "two.warc"):
        again = read(name)
        assert (
            sorted(again.read("documents", columns).to_pylist(), key=lambda row: row["url"])
            == wanted
        )
        assert sorted(map(str, again.read("fetches", times).to_pylist())) == sorted(
            map(str, fetches)
        )
    both = read()
    assert both.rows("documents") == len(wanted)
    assert both.manifest.facts["rejected"] == {"duplicate_address": len(wanted)}


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (b"HTTP/1.1 200 OK", b"HTTP/1.1 2oo OK"),
        (b"HTTP/1.1 200 OK", "HTTP/1.1 \u00b2 OK".encode()),
        (b"WARC-Date: 2", b"WARC-Date: x"),
        (b"WARC-Date: ", b"WARC-Date: 0001-01-01T00:00:00+23:00\r\nX-Date: "),
    ],
    ids=["status", "superscript status", "date", "date before the first year"],
)
def test_a_record_of_an_archive_with_a_broken_head_is_one_failure(
    site, crawl, read, folder, good, bad
):
    site.page("/", "/a")
    site.page("/a")
    data = gzip.decompress((crawl().path / "warc/site-00000.warc.gz").read_bytes())
    start = data.rindex(b"WARC/1.1", 0, data.rindex(b"WARC-Type: response"))  # the last page
    (folder / "a.warc").write_bytes(data[:start] + data[start:].replace(good, bad, 1))
    artifact = read()
    assert artifact.rows("documents") == 1
    assert artifact.manifest.facts["rejected"]["unreadable_row"] == 1


DAMAGED = {
    "a head that does not end": ("a.warc", b"WARC/1.0\r\nX: " + b"a" * 100_000),
    "a head alone": ("a.warc", b"WARC/1.0\r\n"),
    "lines without text": ("a.warc", b"\n\n"),
    "cut while packed": ("a.warc.gz", gzip.compress(warc_record() * 3, mtime=0)[:-30]),
    "cut after sound pages": (
        "a.warc.gz",
        gzip.compress(warc_record(), mtime=0)
        + gzip.compress(warc_record(b"https://b.org/"), mtime=0)[:-30],
    ),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_an_archive_that_is_damaged_is_said_to_be_and_not_taken_for_an_empty_one(
    read, folder, case
):
    name, data = DAMAGED[case]
    (folder / name).write_bytes(data)
    with pytest.raises(InputError, match=rf"{name}: is damaged: it "):
        read()
