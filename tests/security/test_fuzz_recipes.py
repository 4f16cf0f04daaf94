"""Any file is a recipe or gives one named error: no hang, no traceback, and nothing is run."""

from __future__ import annotations

import os
import string
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import strategies as st

import stages
from data_contracts import ConfigError
from flows import recipe, recipe_file
from tests.security import fuzzing

SHIPPED = [path.read_text("utf-8") for path in sorted(recipe.FOLDER.glob("*.yaml"))]
MARKS = "{}[]:,-?&*!|>'\"%@`#~=\n \t\r\0\x1b\x85\u202e\ufeff"

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.floats(),
    st.text(max_size=20),
    st.dates(),
    st.sampled_from(
        ["https://u:p@h/", "0x" + "f" * 5000, "9" * 5000, "2026-02-30", ".inf", "<<", "="]
    ),
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
)
known_keys = st.sampled_from([*recipe_file.KEYS, *stages.NAMES, "sources", "training", "kind"])
recipe_like = st.dictionaries(
    st.sampled_from(recipe_file.KEYS),
    values
    | st.dictionaries(
        known_keys, values | st.dictionaries(known_keys, values, max_size=3), max_size=4
    ),
    max_size=5,
)


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """A shipped recipe with pieces removed, duplicated or overwritten."""
    text = draw(st.sampled_from(SHIPPED))
    for _ in range(draw(st.integers(1, 6))):
        begin = draw(st.integers(0, max(0, len(text) - 1)))
        end = min(len(text), begin + draw(st.integers(0, 40)))
        between = draw(
            st.sampled_from(["", text[begin:end] * 2])
            | st.text(MARKS + string.ascii_letters, max_size=12)
        )
        text = text[:begin] + between + text[end:]
    return text


any_file = st.one_of(
    st.binary(max_size=300),
    st.text(max_size=200).map(str.encode),
    st.text(MARKS + "abst0.", max_size=120).map(str.encode),
    damaged().map(lambda text: text.encode("utf-8", "surrogatepass")),
    recipe_like.map(lambda found: yaml.safe_dump(found).encode()),
)


def read(data: bytes, folder: Path) -> None:
    """Load a file with this content: gives a recipe, or a ConfigError that is safe to print."""
    path = folder / "fuzzed.yaml"
    path.write_bytes(data)
    try:
        loaded = recipe.load(str(path))
    except ConfigError as error:
        message = str(error)
        assert len(message) < 20_000, "nobody reads that"
        assert "\x1b" not in message
    else:
        assert set(loaded.configs) == set(stages.NAMES)


def set_value(text: str) -> None:
    with suppress(ConfigError):
        recipe.load("tiny", [f"dedup.threshold={text}", f"crawl.sources={text}"])


any_value = st.one_of(st.text(max_size=60), st.text(MARKS + "a0.", max_size=60), values.map(str))


@pytest.mark.slow
def test_any_file_is_a_recipe_or_one_error(tmp_path: Path) -> None:
    fuzzing.many(any_file, lambda data: read(data, tmp_path))


@pytest.mark.slow
def test_any_text_is_a_value_of_a_setting_or_one_error() -> None:
    fuzzing.many(any_value, set_value)


@pytest.mark.long
@pytest.mark.timeout(0)
def test_any_file_is_a_recipe_or_one_error_for_as_long_as_we_look(tmp_path: Path) -> None:
    fuzzing.as_long_as_the_budget(any_file, lambda data: read(data, tmp_path))


@pytest.mark.long
@pytest.mark.timeout(0)
def test_any_text_is_a_value_or_one_error_for_as_long_as_we_look() -> None:
    fuzzing.as_long_as_the_budget(any_value, set_value)


LAUGHS = "a: &a [x,x]\n" + "\n".join(
    f"{name}: &{name} [*{below},*{below},*{below}]"
    for below, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"about: " + b"[" * 100_000, "nested more than|nesting depth"),
        (
            b"about:\n" + b"".join(b" " * depth + b"-\n" for depth in range(1, 400)),
            "nested more than",
        ),
        (LAUGHS.encode(), "uses YAML aliases"),
        (b"about: x\n" + b"# \n" * 600_000, "more than 1,048,576 bytes"),
        (b"prompts: [" + b"a," * 60_000 + b"]", "more than 50,000 values"),
        (bytes(range(256)), "is no text"),
        (b"about: \0", "character U\\+0000"),
        (b"about: !!python/object/apply:os.system [touch /tmp/owned]", "uses a tag"),
        (b"about: !!binary aGk=", "uses a tag"),
        (b"seed: 0x" + b"f" * 5000, "too long to show|limit"),
        (b"seed: " + b"9" * 5000, "limit"),
        (b"extends: " + b"x" * 5000, "there is no such recipe"),
        (b'extends: "\\0"', "there is no such recipe"),
        (b"about: x\n? [a, b]\n: c", "unhashable"),
        (b"seconds: {crawl: .inf}", "seconds is"),
    ],
    ids=range(15),
)
def test_a_file_beyond_all_bounds_is_one_short_error(tmp_path: Path, data: bytes, why: str) -> None:
    path = tmp_path / "hostile.yaml"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=why) as error:
        recipe.load(str(path))
    assert len(str(error.value)) < 7000


def test_thousands_of_mistakes_are_counted_and_not_all_told(tmp_path: Path) -> None:
    path = tmp_path / "many.yaml"
    path.write_text("about: x\n" + "".join(f"key{number}: 1\n" for number in range(20_000)))
    with pytest.raises(ConfigError, match="and 19,980 more"):
        recipe.load(str(path))
    path = tmp_path / "deep.yaml"
    path.write_text(
        "stages:\n  dedup:\n" + "".join(f"    {'k' * 500}{number}: 1\n" for number in range(1000))
    )
    with pytest.raises(ConfigError) as error:
        recipe.load(str(path))
    assert len(str(error.value)) < 20_000


@pytest.mark.parametrize(
    "path", ["/dev/zero", "/dev/stdin", "/", "a" * 5000, "nul\0byte", "\ud800"], ids=range(6)
)
def test_what_is_no_plain_file_is_no_recipe(path: str) -> None:
    with pytest.raises(ConfigError, match="there is no such recipe or file"):
        recipe.load(path)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(ConfigError, match="there is no such recipe or file"):
        recipe.load(str(tmp_path / "pipe.yaml"))


def test_recipes_that_extend_each_other_without_end_are_refused(tmp_path: Path) -> None:
    for number in range(50):
        (tmp_path / f"{number}.yaml").write_text(f"extends: {number + 1}.yaml\n")
    with pytest.raises(ConfigError, match="is extended over"):
        recipe.load(str(tmp_path / "0.yaml"))


@pytest.mark.parametrize(
    "value",
    ["[" * 100_000, "&a [*a]", "!!python/name:os.system", "0001-01-01T00:00:00+23:59", "9" * 5000],
    ids=range(5),
)
def test_a_value_on_the_command_line_keeps_the_same_bounds(value: str) -> None:
    with pytest.raises(ConfigError):
        recipe.load("tiny", [f"dedup.threshold={value}"])


def test_the_recipes_that_groundup_ships_are_far_from_the_bounds() -> None:
    counted: list[Any] = [list(yaml.parse(text)) for text in SHIPPED]
    assert max(map(len, counted)) < recipe_file.MAX_VALUES / 20
    assert max(map(len, SHIPPED)) < recipe_file.MAX_BYTES / 20
