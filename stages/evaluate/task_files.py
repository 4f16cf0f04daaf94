"""Checks task files of lm-eval, which may come from anybody, before lm-eval runs what they ask for.

`!function` and `class` are Python, an unknown metric is Python from a hub, a template is Jinja
without a sandbox, and the settings of a model's answers may name a program, too. So a file is read
here first, within bounds, and everything that is not plain data is named. lm-eval's own tasks come
with its package and are trusted like it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
import yaml
from jinja2 import nodes

from data_contracts import ConfigError
from data_contracts.files import read_bounded

MAX_BYTES, MAX_VALUES, MAX_DEPTH = 1 << 20, 50_000, 30
MAX_FILES = 100  # that include each other
MAX_TEMPLATE = 16 << 10  # characters
SHOWN, SHOWN_REASONS = 60, 5

# lm-eval's own; it looks for any other metric on a hub, or in the folder of that name, and runs it
METRICS = {
    "acc", "acc_all", "acc_bytes", "acc_mutual_info", "acc_norm", "bits_per_byte", "bleu",
    "brier_score", "byte_perplexity", "bypass", "chrf", "chrf++", "exact_match", "f1",
    "likelihood", "mcc", "perplexity", "ter", "word_perplexity",
}  # fmt: skip
READERS = {"arrow", "csv", "json", "parquet", "text"}  # of data files, in the library datasets
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
ANSWER_SETTINGS = {
    "do_sample", "max_completion_tokens", "max_gen_toks", "max_length", "max_new_tokens",
    "max_tokens", "min_new_tokens", "num_beams", "repetition_penalty", "stop", "temperature",
    "top_k", "top_p", "until",
}  # fmt: skip

# of `datasets.load_dataset`. Others may run code, write anywhere, or never end.
DATA_SETTINGS = {
    "cache_dir", "column_names", "columns", "data_dir", "data_files", "field", "keep_linebreaks",
    "revision", "split", "streaming",
    "trust_remote_code",  # true is refused by itself
}  # fmt: skip
DATA_SCHEMES = {"https", "hf"}

# what takes no longer, and makes no more text, than the template and the row are long
_NODES = (
    nodes.Template,
    nodes.Output,
    nodes.TemplateData,
    nodes.Const,
    nodes.Name,
    nodes.Getattr,
    nodes.Getitem,
    nodes.Slice,
    nodes.Filter,
    nodes.Call,
    nodes.Test,
    nodes.CondExpr,
    nodes.If,
    nodes.Compare,
    nodes.Operand,
    nodes.And,
    nodes.Or,
    nodes.Not,
    nodes.Add,
    nodes.Concat,
    nodes.List,
    nodes.Tuple,
    nodes.Dict,
    nodes.Pair,
)
_FILTERS = {
    "capitalize", "count", "d", "default", "first", "float", "int", "last", "length", "lower",
    "string", "title", "trim", "upper",
}  # fmt: skip
_METHODS = {
    "capitalize", "count", "endswith", "find", "index", "lower", "lstrip", "rstrip", "split",
    "startswith", "strip", "title", "upper",
}  # fmt: skip
_OPENING = (yaml.MappingStartEvent, yaml.SequenceStartEvent)
_CLOSING = (yaml.MappingEndEvent, yaml.SequenceEndEvent)


class TaskFileNotPlainError(ValueError):
    """A file is not plain data within the bounds.

    The message does not repeat the content of the file, which may not be a task at all.
    """


def check(path: Path) -> None:
    """Refuse a task file that would run code, or that includes one that would.

    Raises:
        ConfigError: It would, or it cannot be read.
    """
    reasons = list(dict.fromkeys(code_in(path)))
    if not reasons:
        return
    more = ""
    if len(reasons) > SHOWN_REASONS:
        more = f" (and {len(reasons) - SHOWN_REASONS} more)"
    raise ConfigError(
        f"evaluate.tasks {path}",
        f"may run code that its author chose: {'; '.join(reasons[:SHOWN_REASONS])}{more}",
        "read the file and what it names; "
        "if you trust it with your account: evaluate.allow_code=true",
    )


def code_in(path: Path) -> Iterator[str]:
    """Yield what a task file, or a file that it includes, asks for beyond plain data, in words.

    Raises:
        ConfigError: A file cannot be read.
    """
    waiting, seen = [path], set()
    while waiting:
        file = _resolved(waiting.pop())
        if file in seen:
            continue
        seen.add(file)
        if len(seen) > MAX_FILES:
            yield f"more than {MAX_FILES} files that include each other"
            return
        try:
            values = _read(file)
        except TaskFileNotPlainError as error:
            yield f"{file.name} {error}"
            continue
        except (OSError, ValueError) as error:
            raise _unreadable(f"{file}", error) from None
        yield from _code_in_value(values, "")
        includes = values.get("include") or []
        if not isinstance(includes, list):
            includes = [includes]
        waiting += [file.parent / name for name in includes if isinstance(name, str)]


def _resolved(path: Path) -> Path:
    try:
        return path.expanduser().resolve()
    except (OSError, ValueError, RuntimeError) as error:
        # a name that a file cannot have, or a loop of links
        raise _unreadable(repr(str(path)[:SHOWN]), error) from None


def _unreadable(file: str, error: Exception) -> ConfigError:
    return ConfigError(f"evaluate.tasks {file}", f"cannot be read: {error}", "correct the path")


def _read(path: Path) -> dict[str, Any]:
    """Return the content of a file.

    Raises:
        TaskFileNotPlainError: It is not plain YAML.
        OSError: There is no such file, or it cannot be read.
        ValueError: It is too long.
    """
    data = read_bounded(path, MAX_BYTES)
    try:
        text = data.decode("utf-8")
        _check_events(text)
        values = yaml.safe_load(text)
    except TaskFileNotPlainError:
        raise
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError):
        raise TaskFileNotPlainError("is not YAML") from None
    if not isinstance(values, dict):
        raise TaskFileNotPlainError("is not a mapping")
    return values


def _check_events(text: str) -> None:
    """Refuse aliases, tags and too many values, before YAML builds any of them."""
    depth = count = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        line = f"line {event.start_mark.line + 1}" if event.start_mark else "some line"
        if isinstance(event, yaml.AliasEvent):
            raise TaskFileNotPlainError(f"has an alias in {line}")
        tag = getattr(event, "tag", None)
        if tag:
            raise TaskFileNotPlainError(f"has {tag[:SHOWN]} in {line}")
        depth += isinstance(event, _OPENING) - isinstance(event, _CLOSING)
        count += isinstance(event, (yaml.ScalarEvent, *_OPENING))
        if depth > MAX_DEPTH or count > MAX_VALUES:
            raise TaskFileNotPlainError(
                f"is nested more than {MAX_DEPTH} deep, or has more than {MAX_VALUES:,} values"
            )


def _code_in_value(value: Any, key: str) -> Iterator[str]:
    """Yield what the value of `key`, and everything within it, asks for beyond plain data."""
    if isinstance(value, dict):
        for inner, content in value.items():
            yield from _code_in_setting(str(inner), content)
            yield from _code_in_value(content, str(inner))
    elif isinstance(value, list):
        for item in value:
            yield from _code_in_value(item, key)
    elif isinstance(value, str) and any(mark in value for mark in ("{{", "{%", "{#")):
        yield from _code_in_template(value, key)


def _code_in_setting(key: str, value: Any) -> Iterator[str]:
    """Yield what a setting asks for by its key and its own value."""
    shown = repr(value)[:SHOWN]
    if key in ("class", "use_prompt", "custom_dataset"):
        yield f"{key} {shown}"
    elif key in ("hf_evaluate", "trust_remote_code") and value:
        yield f"{key}: {shown}"
    elif key == "metric" and not _is_in(value, METRICS):
        yield f"the metric {shown}, which is none of lm-eval's own"
    elif key == "dataset_path" and not _is_in(value, READERS) and not _is_on_hub(value):
        readers = ", ".join(sorted(READERS))
        yield f"dataset_path {shown}, neither a name on the hub nor one of {readers}"
    elif key == "dataset_kwargs":
        yield from _code_in_data_settings(value)
    elif key == "generation_kwargs" and isinstance(value, dict):
        others = sorted(str(name) for name in value if name not in ANSWER_SETTINGS)
        for other in others:
            yield f"the setting of answers {other[:SHOWN]!r}"


def _code_in_data_settings(settings: Any) -> Iterator[str]:
    """Yield which settings of `datasets` a task may not choose.

    fsspec opens the addresses. Chained ones (`filecache::…`) and most schemes can write files.
    """
    if not isinstance(settings, dict | None):
        yield "dataset_kwargs that is no mapping"
        return
    for name, value in (settings or {}).items():
        if name not in DATA_SETTINGS:
            yield f"the setting of its data {str(name)[:SHOWN]!r}"
        waiting = [value]
        while waiting:
            part = waiting.pop()
            if isinstance(part, dict):
                waiting += [*part.keys(), *part.values()]
            elif isinstance(part, list):
                waiting += part
            elif not _is_plain_address(str(part)):
                yield f"the address {str(part)[:SHOWN]!r}"


def _is_plain_address(text: str) -> bool:
    scheme, separator, _ = text.partition("://")
    is_known = not separator or scheme in DATA_SCHEMES
    return is_known and "::" not in text


def _is_in(value: Any, names: set[str]) -> bool:
    return isinstance(value, str) and value in names


def _is_on_hub(name: Any) -> bool:
    if not isinstance(name, str):
        return False
    return HUB_NAME.fullmatch(name) is not None and not Path(name).exists()


def _code_in_template(text: str, key: str) -> Iterator[str]:
    shown = f"the template of {key[:SHOWN]}"
    if len(text) > MAX_TEMPLATE:
        yield f"{shown}, which is longer than {MAX_TEMPLATE:,} characters"
        return
    try:
        tree = jinja2.Environment().parse(text)
        waiting: list[nodes.Node] = [tree]
        while waiting:
            node = waiting.pop()
            code = _code_in_node(node)
            if code:
                yield f"{shown} with {code}"
            waiting += node.iter_child_nodes()
    except (jinja2.TemplateError, RecursionError, ValueError, OverflowError, MemoryError):
        yield f"{shown}, which cannot be read"


def _code_in_node(node: nodes.Node) -> str | None:
    """Return what one step of a template asks for beyond the row that it shows.

    It may also take longer, or make more text, than the row and the template are long.
    """
    if not isinstance(node, _NODES):
        return f"`{type(node).__name__}`"
    if isinstance(node, nodes.Filter) and node.name not in _FILTERS:
        return f"the filter {node.name[:SHOWN]}"
    if isinstance(node, nodes.Getattr) and node.attr.startswith("_"):
        return f"the attribute {node.attr[:SHOWN]}"
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
        name = node.arg.value
        if isinstance(name, str) and name.startswith("_"):
            return f"the attribute {name[:SHOWN]}"
    if isinstance(node, nodes.Call):
        method = node.node.attr if isinstance(node.node, nodes.Getattr) else None
        if method not in _METHODS or node.kwargs or node.dyn_args or node.dyn_kwargs:
            return f"a call of {str(method or 'a function')[:SHOWN]}"
    return None
