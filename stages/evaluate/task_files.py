"""Task files of lm-eval may be anybody's, and lm-eval runs what they ask for.

`!function` and `class` are Python, an unknown metric is Python from a hub, a template is Jinja without a
sandbox, and the settings of a model's answers may name a program too. So a file is read here first, within
bounds, and what is not plainly data is named. lm-eval's own tasks come with its package and are trusted like it.
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

MOST_BYTES, MOST_VALUES, DEEPEST = 1 << 20, 50_000, 30
MOST_FILES = 100  # that include each other
MOST_TEMPLATE = 16 << 10  # characters
SHOWN, SHOWN_REASONS = 60, 5

# of lm-eval; it looks for any other on a hub, or in the folder of that name, and runs what it finds
METRICS = {
    "acc", "acc_all", "acc_bytes", "acc_mutual_info", "acc_norm", "bits_per_byte", "bleu", "brier_score",
    "byte_perplexity", "bypass", "chrf", "chrf++", "exact_match", "f1", "likelihood", "mcc", "perplexity", "ter",
    "word_perplexity",
}  # fmt: skip
READERS = {"arrow", "csv", "json", "parquet", "text"}  # of data files, in the library datasets
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
ANSWER_SETTINGS = {
    "do_sample", "max_completion_tokens", "max_gen_toks", "max_length", "max_new_tokens", "max_tokens",
    "min_new_tokens", "num_beams", "repetition_penalty", "stop", "temperature", "top_k", "top_p", "until",
}  # fmt: skip

# what takes no longer and makes no more text than the template and the row are long
_NODES = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.Const, nodes.Name, nodes.Getattr, nodes.Getitem,
    nodes.Slice, nodes.Filter, nodes.Call, nodes.Test, nodes.CondExpr, nodes.If, nodes.Compare, nodes.Operand,
    nodes.And, nodes.Or, nodes.Not, nodes.Add, nodes.Concat, nodes.List, nodes.Tuple, nodes.Dict, nodes.Pair,
)  # fmt: skip
_FILTERS = {
    "capitalize", "count", "d", "default", "first", "float", "int", "last", "length", "lower", "string", "title",
    "trim", "upper",
}  # fmt: skip
_METHODS = {
    "capitalize", "count", "endswith", "find", "index", "lower", "lstrip", "rstrip", "split", "startswith",
    "strip", "title", "upper",
}  # fmt: skip
_OPENS = (yaml.MappingStartEvent, yaml.SequenceStartEvent)
_CLOSES = (yaml.MappingEndEvent, yaml.SequenceEndEvent)


class NotPlainError(ValueError):
    """A file that is no plain data within the bounds; it does not say what is in the file, which may be no task at all."""


def check(path: Path) -> None:
    """Refuse a task file that would run code, or that includes one that would.

    Raises:
        ConfigError: It would, or it cannot be read.
    """
    found = list(dict.fromkeys(code_in(path)))
    if not found:
        return
    more = f" (and {len(found) - SHOWN_REASONS} more)" if len(found) > SHOWN_REASONS else ""
    raise ConfigError(
        f"evaluate.tasks {path}",
        f"may run code that its author chose: {'; '.join(found[:SHOWN_REASONS])}{more}",
        "read the file and what it names; if you trust it with your account: evaluate.allow_code=true",
    )


def code_in(path: Path) -> Iterator[str]:
    """What a task file asks for beyond plain data, in words; also in the files that it includes.

    Raises:
        ConfigError: A file cannot be read.
    """
    waiting, seen = [path], set()
    while waiting:
        file = _resolved(waiting.pop())
        if file in seen:
            continue
        seen.add(file)
        if len(seen) > MOST_FILES:
            yield f"more than {MOST_FILES} files that include each other"
            return
        try:
            values = _read(file)
        except NotPlainError as error:
            yield f"{file.name} {error}"
            continue
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"evaluate.tasks {file}", f"cannot be read: {error}", "correct the path"
            ) from None
        yield from _asked(values, "")
        includes = values.get("include") or []
        waiting += [file.parent / name for name in _list(includes) if isinstance(name, str)]


def _resolved(path: Path) -> Path:
    try:
        return path.expanduser().resolve()
    except (
        OSError,
        ValueError,
        RuntimeError,
    ) as error:  # a name that no file can have, a loop of links
        raise ConfigError(
            f"evaluate.tasks {str(path)[:SHOWN]!r}", f"cannot be read: {error}", "correct the path"
        ) from None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _read(path: Path) -> dict[str, Any]:
    """Raises NotPlainError for what is not plain YAML, OSError or ValueError if there is no such file."""
    data = read_bounded(path, MOST_BYTES)
    try:
        text = data.decode("utf-8")
        _check_events(text)
        values = yaml.safe_load(text)
    except NotPlainError:
        raise
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError):
        raise NotPlainError("is not YAML") from None
    if not isinstance(values, dict):
        raise NotPlainError("is not a mapping")
    return values


def _check_events(text: str) -> None:
    depth = count = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        line = f"line {event.start_mark.line + 1}" if event.start_mark else "some line"
        if isinstance(event, yaml.AliasEvent):
            raise NotPlainError(f"has an alias in {line}")
        if tag := getattr(event, "tag", None):
            raise NotPlainError(f"has {tag[:SHOWN]} in {line}")
        depth += isinstance(event, _OPENS) - isinstance(event, _CLOSES)
        count += isinstance(event, (yaml.ScalarEvent, *_OPENS))
        if depth > DEEPEST or count > MOST_VALUES:
            raise NotPlainError(
                f"is nested more than {DEEPEST} deep, or has more than {MOST_VALUES:,} values"
            )


def _asked(value: Any, key: str) -> Iterator[str]:
    """What the value of `key`, and all within it, asks for."""
    if isinstance(value, dict):
        for inner, content in value.items():
            name = str(inner)
            if refused := _refused(name, content):
                yield refused
            if name == "generation_kwargs" and isinstance(content, dict):
                others = sorted(
                    str(setting) for setting in content if setting not in ANSWER_SETTINGS
                )
                yield from (f"the setting of answers {other[:SHOWN]!r}" for other in others)
            yield from _asked(content, name)
    elif isinstance(value, list):
        for item in value:
            yield from _asked(item, key)
    elif isinstance(value, str) and any(mark in value for mark in ("{{", "{%", "{#")):
        yield from _template(value, key)


def _refused(key: str, value: Any) -> str | None:
    shown = repr(value)[:SHOWN]
    if key in ("class", "use_prompt", "custom_dataset"):
        return f"{key} {shown}"
    if key in ("hf_evaluate", "trust_remote_code") and value:
        return f"{key}: {shown}"
    if key == "metric" and not (isinstance(value, str) and value in METRICS):
        return f"the metric {shown}, which is none of lm-eval's own"
    if key == "dataset_path" and not (
        isinstance(value, str) and (value in READERS or _on_hub(value))
    ):
        return f"dataset_path {shown}, neither a name on the hub nor one of {', '.join(sorted(READERS))}"
    return None


def _on_hub(name: str) -> bool:
    return HUB_NAME.fullmatch(name) is not None and not Path(name).exists()


def _template(text: str, key: str) -> Iterator[str]:
    shown = f"the template of {key[:SHOWN]}"
    if len(text) > MOST_TEMPLATE:
        yield f"{shown}, which is longer than {MOST_TEMPLATE:,} characters"
        return
    try:
        tree = jinja2.Environment().parse(text)
        waiting: list[nodes.Node] = [tree]
        while waiting:
            node = waiting.pop()
            if asked := _step(node):
                yield f"{shown} with {asked}"
            waiting += node.iter_child_nodes()
    except (jinja2.TemplateError, RecursionError, ValueError, OverflowError, MemoryError):
        yield f"{shown}, which cannot be read"


def _step(node: nodes.Node) -> str | None:
    """What one step of a template asks for that may take longer, or reach further, than the row that it shows."""
    if not isinstance(node, _NODES):
        return f"`{type(node).__name__}`"
    if isinstance(node, nodes.Filter) and node.name not in _FILTERS:
        return f"the filter {node.name[:SHOWN]}"
    if isinstance(node, nodes.Getattr) and node.attr.startswith("_"):
        return f"the attribute {node.attr[:SHOWN]}"
    if isinstance(node, nodes.Getitem):
        named = node.arg.value if isinstance(node.arg, nodes.Const) else None
        if isinstance(named, str) and named.startswith("_"):
            return f"the attribute {named[:SHOWN]}"
    if isinstance(node, nodes.Call):
        method = node.node.attr if isinstance(node.node, nodes.Getattr) else None
        if method not in _METHODS or node.kwargs or node.dyn_args or node.dyn_kwargs:
            return f"a call of {str(method or 'a function')[:SHOWN]}"
    return None
