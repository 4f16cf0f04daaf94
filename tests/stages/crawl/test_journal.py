from __future__ import annotations

from stages.crawl.journal import Journal


def test_a_line_counts_when_its_end_is_there(tmp_path):
    journal = Journal(tmp_path / "j")
    first = {"kind": "failed", "url": "http://x/1"}
    journal.append(first)
    whole = (tmp_path / "j").stat().st_size
    journal.append({"kind": "failed", "url": "http://x/2"})
    journal.cut((tmp_path / "j").stat().st_size - 1)
    assert list(journal.replay()) == [(0, whole, first)]
    journal.close()
