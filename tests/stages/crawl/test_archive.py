from __future__ import annotations

from datetime import UTC, datetime

import pytest

from stages.crawl.archive import Archive
from stages.crawl.fetch import HttpResponse


@pytest.fixture
def archive(tmp_path):
    """archive(name) → an archive in one folder, with one page."""

    def go(name, files=1):
        made = Archive(tmp_path, name, "test")
        for number in range(files):
            made._open(number)
            made.write(
                HttpResponse(
                    "http://example.org/", 200, "OK", (), (), b"page", False, datetime.now(UTC)
                )
            )
        made.close()
        return made

    return go


def test_an_archive_takes_away_nothing_of_one_whose_name_begins_like_its_own(archive, tmp_path):
    for name in ("site-2", "site-00000", "site-2-3"):
        archive(name)
    others = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    site = archive("site")
    paths = site.paths
    site.cut(None)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == others
    assert [path.name for path in paths.values()] == ["site-00000.warc.gz"]


def test_the_number_of_a_file_is_the_one_in_its_name(archive):
    site = archive("site", files=2)
    last = site.write(
        HttpResponse("http://example.org/2", 200, "OK", (), (), b"page", False, datetime.now(UTC))
    )
    site.close()
    site.path(0).unlink()
    whole = site.path(last.file).stat().st_size
    with site.path(last.file).open("ab") as file:
        file.write(b"torn")
    site.cut(last)
    assert site.path(2).stat().st_size == whole
    assert list(site.paths) == [1, 2]
    site.close()
