"""Rows made from a contract: some keep it, and for every rule some break only that rule."""

from __future__ import annotations

import re._constants as kinds
import re._parser as parser
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from open_data_contract_standard.model import SchemaProperty

from data_contracts.contract import Contract

Row = dict[str, Any]


@dataclass(frozen=True)
class Broken:
    """A rule of a column. `spoil` puts a value that breaks this rule only into a good row."""

    table: str
    column: str
    rule: str
    spoil: Callable[[Row], None]

    def __str__(self) -> str:
        return f"{self.table}.{self.column}-{self.rule}"


def good_rows(contract: Contract, table: str, count: int, first: int = 0) -> list[Row]:
    """Rows that keep the contract; row n differs from all others in its unique columns."""
    return [
        {str(p.name): good(p, n) for p in contract.columns(table)}
        for n in range(first, first + count)
    ]


def broken_rows(contract: Contract, table: str, earlier: Row) -> Iterator[Broken]:
    """`earlier` is a row of the same table that stands before the spoilt one."""
    for prop in contract.columns(table):
        name = str(prop.name)
        for path, rule, value in _bad_values(prop, name):
            yield Broken(
                table, path, rule, lambda row, name=name, value=value: row.__setitem__(name, value)
            )
        if prop.unique or prop.primaryKey:
            yield Broken(
                table, name, "unique", lambda row, name=name: row.__setitem__(name, earlier[name])
            )


def good(prop: SchemaProperty, n: int) -> Any:
    """A value that keeps every rule of the column; n makes it one of several."""
    options = prop.logicalTypeOptions or {}
    if prop.enum:
        return prop.enum[n % len(prop.enum)].value
    if prop.logicalType == "array":
        assert prop.items is not None
        return [good(prop.items, n + item) for item in range(max(1, options.get("minItems", 1)))]
    if prop.logicalType == "object":
        return {str(child.name): good(child, n) for child in prop.properties or []}
    if prop.logicalType == "boolean":
        return n % 2 == 0
    if prop.logicalType == "timestamp":
        return datetime(2024, 5, 17, tzinfo=UTC) + timedelta(seconds=n)
    if prop.logicalType in ("integer", "number"):
        value = options.get("minimum", 0) + n
        return min(value, options["maximum"]) if "maximum" in options else value
    if "pattern" in options:
        return "".join(_matching(parser.parse(options["pattern"]), n))
    text = f"{n} " + "é" * options.get("minLength", 1)
    text = text[: options.get("maxLength", len(text))]
    return text.encode() if prop.physicalType == "large_binary" else text


def ill_typed(prop: SchemaProperty) -> Any:
    """A value that the column's type cannot hold."""
    return 7 if prop.logicalType in ("string", "array", "object") else "no such value"


def _bad_values(prop: SchemaProperty, name: str) -> Iterator[tuple[str, str, Any]]:
    """(path, rule, value of the whole column) for each rule that the column or its inside has."""
    options = prop.logicalTypeOptions or {}
    if prop.required:
        yield name, "required", None
    if "minimum" in options:
        yield name, "minimum", options["minimum"] - 1
    if "maximum" in options:
        yield name, "maximum", options["maximum"] + 1
    if prop.logicalType == "number":
        yield name, "finite", float("nan")
        if "maximum" not in options:
            yield name, "finite", float("inf")
        if "minimum" not in options:
            yield name, "finite", float("-inf")
    if "minLength" in options:
        yield name, "minLength", "é" * (options["minLength"] - 1)
    if "maxLength" in options:
        yield name, "maxLength", "é" * (options["maxLength"] + 1)
    if "pattern" in options:
        yield name, "pattern", "☃" * 3
        yield name, "pattern", good(prop, 0) + "\n"
    if prop.enum:
        yield name, "enum", "☃" if prop.logicalType == "string" else 2**15 - 1
    if "minItems" in options:
        yield name, "minItems", good(prop, 0)[: options["minItems"] - 1]
    if "maxItems" in options:
        assert prop.items is not None
        yield name, "maxItems", [good(prop.items, 0)] * (options["maxItems"] + 1)
    if prop.items is not None:
        for path, rule, value in _bad_values(prop.items, f"{name}[]"):
            yield path, rule, [*good(prop, 0), value]
    for child in prop.properties or []:
        for path, rule, value in _bad_values(child, f"{name}.{child.name}"):
            yield path, rule, good(prop, 0) | {str(child.name): value}


def _matching(pattern: Any, n: int) -> Iterator[str]:
    """A shortest text that a simple pattern matches; `n` chooses among the allowed characters."""
    for kind, value in pattern:
        if kind == kinds.LITERAL:
            yield chr(value)
        elif kind == kinds.IN:
            allowed = [
                chr(c)
                for op, v in value
                for c in ([v] if op == kinds.LITERAL else range(v[0], v[1] + 1))
            ]
            yield allowed[n % len(allowed)]
        elif kind == kinds.MAX_REPEAT:
            least, _, inner = value
            for _ in range(least):
                yield from _matching(inner, n)
        elif kind != kinds.AT:
            raise NotImplementedError(f"{kind} in a pattern")
