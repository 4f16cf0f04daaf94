"""Settings of crawl: what enters the identity, and mistakes."""

from __future__ import annotations

import pytest

import stages
from data_contracts import ConfigError
from stages.crawl.config import Pace
from stages.renamed_settings import RenamedSettingWarning
from tests.stages.crawl.conftest import grouped


def test_where_and_how_to_run_is_no_part_of_the_identity():
    crawl = stages.stage("crawl").config_class
    web = {"kind": "web", "name": "w", "seeds": ["https://example.org/"]}
    one, other = (
        crawl.parse({"sources": [web | more]}, "crawl").identity()
        for more in ({}, {"pace": {"connections": 2, "delay_seconds": 9}})
    )
    assert one == other
    assert one != crawl.parse({"sources": [web | {"limits": {"max_depth": 3}}]}, "crawl").identity()


FLAT = {
    "web": {"seeds": ["https://example.org/"], "max_pages": 7, "timeout_seconds": 3, "per_host": 2},
    "pydoc": {"max_depth": 3, "max_minutes": 1},
    "files": {"paths": [__file__], "max_page_bytes": 2048},
    "dataset": {"dataset": "somebody/pages", "max_documents": 5},
}


@pytest.mark.parametrize("kind", FLAT)
def test_settings_outside_their_group_are_read_with_a_note_and_enter_the_id_as_before(kind):
    crawl = stages.stage("crawl").config_class
    flat = {"kind": kind, "name": "one"} | FLAT[kind]
    with pytest.warns(
        RenamedSettingWarning, match=r"now called crawl\.sources\.0\.(limits|pace)\."
    ):
        old = crawl.parse({"sources": [flat]}, "crawl")
    source = type(old.sources[0])
    new = crawl.parse({"sources": [grouped(source, flat)]}, "crawl")
    assert old == new
    (entered,) = new.identity()["sources"]
    assert not {"limits", "pace"} & set(entered)
    kept = {name: value for name, value in flat.items() if name not in Pace.model_fields}
    assert kept.items() <= entered.items()


def test_a_difference_between_ids_is_shown_under_the_name_of_today():
    crawl = stages.stage("crawl").config_class
    assert crawl.name_today("sources.0.max_pages") == "sources.0.limits.max_pages"
    assert crawl.name_today("sources.0.seeds.1") == "sources.0.seeds.1"


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ([{"kind": "web", "name": "w", "seedz": ["https://example.org/"]}], "did you mean 'seeds'"),
        ([{"kind": "wbe", "name": "w"}], "kind 'wbe' is none of web, pydoc, files, dataset"),
        ([{"kind": "pydoc"}, {"kind": "pydoc"}], "two sources are called pydoc"),
        ([{"kind": "pydoc", "name": "../x"}], "pattern"),
        ([], "at least 1 item"),
        ([{"kind": "dataset", "dataset": "a/b", "nam": "x"}], "did you mean 'name'"),
        (
            [{"kind": "pydoc", "max_depth": 3, "limits": {"max_depth": 4}}],
            r"crawl\.sources\.0\.max_depth is now called crawl\.sources\.0\.limits\.max_depth,",
        ),
    ],
)
def test_mistakes_in_the_settings_are_told(sources, message):
    with pytest.raises(ConfigError, match=message):
        stages.stage("crawl").config_class.parse({"sources": sources}, "crawl")
