"""Fuzzing with damaged documents: some hundred tries, or as many as GROUNDUP_FUZZ_SECONDS allow."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_contracts import GroundupError

BUDGET_S = float(os.environ.get("GROUNDUP_FUZZ_SECONDS", "600"))  # for each test marked `long`
EXAMPLES = 200
AT_A_TIME = 500  # examples between two checks of the time
MAX_MESSAGE_CHARS = 5000  # characters: nobody reads more

Attempt = Callable[[Any], None]
Target = tuple[st.SearchStrategy[Any], Attempt]

_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=30),
    st.sampled_from(
        [0, -1, 1 << 31, 1 << 63, 10**30, "", "\x00", "../../x", "0" * 24, "\ud800", "1.0.0"]
    ),
)
VALUES = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
)
_PIECES = [
    b"{",
    b"}",
    b"[" * 3000,
    b'"',
    b"\x00",
    b"\xff" * 8,
    b"1e999",
    b"NaN",
    b"-",
    b"9" * 5000,
    b"\\ud800",
    b"../",
    b"\n",
    b"null",
    b",",
]


@st.composite
def mangled(draw: st.DrawFn, written: bytes, within: int | None = None) -> bytes:
    """The bytes with pieces overwritten, removed and inserted within the first `within` bytes."""
    data = written
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, min(len(data), within or len(data))))
        length = draw(st.integers(0, 40))
        piece = draw(st.one_of(st.binary(max_size=20), st.sampled_from(_PIECES)))
        data = data[:at] + piece + data[at + length :]
    return data


@st.composite
def edited(draw: st.DrawFn, document: dict[str, Any]) -> bytes:
    """The JSON document with one of its values replaced by any other value."""
    changed = json.loads(json.dumps(document))
    part: Any = changed
    while True:
        keys = list(part) if isinstance(part, dict) else list(range(len(part)))
        key = draw(st.sampled_from(keys))
        inner = part[key]
        if isinstance(inner, dict | list) and inner and draw(st.booleans()):
            part = inner
            continue
        part[key] = draw(VALUES)
        return json.dumps(changed).encode("utf-8", "surrogatepass")


def many(strategy: st.SearchStrategy[Any], attempt: Attempt, examples: int = EXAMPLES) -> None:
    """Try `attempt` with that many examples."""

    @settings(
        max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(strategy)
    def meet(example: Any) -> None:
        attempt(example)

    meet()


def as_long_as_the_budget(strategy: st.SearchStrategy[Any], attempt: Attempt) -> None:
    """Try `attempt` with examples for BUDGET_S seconds."""
    end = time.monotonic() + BUDGET_S
    while time.monotonic() < end:
        many(strategy, attempt, AT_A_TIME)


def refusal(call: Callable[[], Any]) -> str:
    """Return the message of a named error, which must be short and safe for a terminal.

    Returns "" if the call succeeds. Any other error fails the test.
    """
    try:
        call()
    except GroundupError as error:
        message = str(error)
    else:
        return ""
    assert "\x1b" not in message
    assert len(message) < MAX_MESSAGE_CHARS
    return message
