"""What the tests of the evaluation share."""

from __future__ import annotations

import pytest

from tests.golden.evaluate import ITEMS, PAGES


@pytest.fixture
def eval_items(publish):
    return publish("eval_items", items=ITEMS, pages=PAGES)
