"""Settings of crawl: what enters the identity, and mistakes."""

from __future__ import annotations

import pytest

import stages
from data_contracts import ConfigError


def test_where_and_how_to_run_is_no_part_of_the_identity():
    crawl = stages.stage("crawl").config_class
    web = {"kind": "web", "name": "w", "seeds": ["https://example.org/"]}
    one, other = (
        crawl.parse({"sources": [web | more]}, "crawl").identity()
        for more in ({}, {"pace": {"connections": 2, "delay_seconds": 9}})
    )
    assert one == other
    assert one != crawl.parse({"sources": [web | {"limits": {"max_depth": 3}}]}, "crawl").identity()


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ([{"kind": "web", "name": "w", "seedz": ["https://example.org/"]}], "did you mean 'seeds'"),
        ([{"kind": "wbe", "name": "w"}], "'web', 'pydoc', 'files', 'dataset'"),
        ([{"kind": "pydoc"}, {"kind": "pydoc"}], "two sources are called pydoc"),
        ([{"kind": "pydoc", "name": "../x"}], "pattern"),
        ([], "at least 1 item"),
    ],
)
def test_mistakes_in_the_settings_are_told(sources, message):
    with pytest.raises(ConfigError, match=message):
        stages.stage("crawl").config_class.parse({"sources": sources}, "crawl")
