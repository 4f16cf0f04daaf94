"""Contracts of an artifact type that exists only here, so that tests can release versions of it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

BASE: dict[str, Any] = {
    "apiVersion": "v3.1.0",
    "kind": "DataContract",
    "id": "test.pages",
    "name": "pages",
    "version": "1.0.0",
    "status": "active",
    "schema": [
        {
            "name": "rows",
            "physicalName": "rows/*.parquet",
            "physicalType": "table",
            "logicalType": "object",
            "properties": [
                {
                    "name": "id",
                    "logicalType": "string",
                    "physicalType": "string",
                    "required": True,
                    "unique": True,
                },
                {
                    "name": "size",
                    "logicalType": "integer",
                    "physicalType": "int32",
                    "required": True,
                    "logicalTypeOptions": {"minimum": 0, "maximum": 100},
                },
                {
                    "name": "kind",
                    "logicalType": "string",
                    "physicalType": "string",
                    "required": False,
                    "enum": [{"value": "a"}, {"value": "b"}],
                },
                {
                    "name": "tags",
                    "logicalType": "array",
                    "physicalType": "list",
                    "required": True,
                    "logicalTypeOptions": {"minItems": 1},
                    "items": {
                        "name": "item",
                        "logicalType": "string",
                        "physicalType": "string",
                        "required": True,
                        "logicalTypeOptions": {"pattern": "^[a-z]+$"},
                    },
                },
            ],
        },
        {
            "name": "bundle",
            "physicalType": "files",
            "logicalType": "object",
            "properties": [
                {
                    "name": "notes",
                    "physicalName": "*.txt",
                    "logicalType": "string",
                    "physicalType": "file",
                    "required": False,
                }
            ],
        },
    ],
}

SIZE, KIND, TAGS = 1, 2, 3
ROW = {"id": "one", "size": 3, "kind": "a", "tags": ["x"]}


def columns(contract: dict[str, Any]) -> list[dict[str, Any]]:
    return contract["schema"][0]["properties"]


def custom(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """A change that sets a custom property."""
    return lambda contract: contract.update(customProperties=[{"property": name, "value": value}])


def release(
    root: Path, version: str = "1.0.0", change=lambda contract: None, of: dict[str, Any] = BASE
) -> Path:
    """Write a version of `pages` under `root`, as `change` leaves it, and give its path."""
    contract = copy.deepcopy(of) | {"version": version}
    change(contract)
    major, minor, _ = version.split(".")
    path = root / "pages" / (f"v{major}.yaml" if minor == "0" else f"v{major}.{minor}.yaml")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(contract, sort_keys=False), "utf-8")
    return path
