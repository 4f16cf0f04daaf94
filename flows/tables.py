"""Tables for people and JSON for programs: the same rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from data_contracts import Artifact, Store
from data_contracts.artifact import Manifest
from data_contracts.names import Pointing
from flows.console import cell, out
from flows.preview import Step
from stages import Stage

_COLOURS = {"up to date": "green", "reuse": "cyan", "build": "yellow"}


def as_json(value: Any) -> None:
    print(json.dumps(value, indent=1, ensure_ascii=False))


def rows(found: Sequence[Mapping[str, Any]], json_: bool, empty: str) -> None:
    """Any list of equal mappings."""
    if json_:
        as_json(list(found))
    elif not found:
        out.print(empty)
    else:
        table = Table(box=None, pad_edge=False, header_style="dim")
        for column in found[0]:
            table.add_column(column, overflow="fold")
        for row in found:
            table.add_row(*(Text(cell(value)) for value in row.values()))
        out.print(table)


def steps(planned: Sequence[Step], name: str | None, json_: bool) -> None:
    """What would run, and why."""
    if json_:
        as_json([{"stage": s.stage.name, "status": s.status, "reasons": list(s.reasons), "artifact": "/".join(s.output)} for s in planned])
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("stage", "", "why"):
        table.add_column(column, overflow="fold")
    for step in planned:
        table.add_row(step.stage.name, f"[{_COLOURS[step.status]}]{step.status}[/]", Text("; ".join(step.reasons)))
    out.print(table)
    counts = {status: sum(step.status == status for step in planned) for status in _COLOURS}
    told = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    out.print(f"\n{name or 'these artifacts'}: {told}. Nothing was run.")


def keys(stage: Stage, json_: bool) -> None:
    """Inputs and settings of a stage."""
    schema = stage.config_class.model_json_schema()
    settings = [
        {"key": path, "default": default, "what": what} for path, default, what in _settings(stage.name, schema, schema.get("$defs", {}))
    ]
    inputs = [{"input": i.name, "contract": f"{i.noun} {i.major}.x", "default": f"NAME/{i.role}"} for i in stage.consumes]
    if json_:
        as_json({"stage": stage.name, "produces": stage.produces, "inputs": inputs, "settings": settings})
        return
    out.print(f"[bold]{stage.name}[/] makes {stage.produces} (NAME/{stage.role})\n")
    rows(inputs, False, empty="no inputs")
    out.print()
    rows(settings, False, empty="no settings")


def pointing(store: Store, role: str, pointed: Pointing) -> dict[str, Any]:
    """One row of `groundup ls NAME`."""
    if not store.has(pointed.noun, pointed.id):
        return {"artifact": role, "id": pointed.id, "made by": "–", "rows": "missing: groundup run", "MB": "–", "finished": "–"}
    manifest = store.open(pointed.noun, pointed.id, verify=False).manifest
    return {
        "artifact": role,
        "id": manifest.id[:12],
        "made by": manifest.stage,
        "rows": counts(manifest),
        "MB": round(manifest.bytes / 1e6, 2),
        "finished": manifest.finished,
    }


def counts(manifest: Manifest) -> str:
    """ "1,426 train, 66 heldout": the rows of each table."""
    return ", ".join(f"{count:,} {table}" for table, count in manifest.rows.items())


def artifact(store: Store, found: Artifact) -> dict[str, Any]:
    """An artifact as JSON, without its list of files."""
    return found.manifest.model_dump(mode="json", exclude={"files"}) | {"path": str(found.path), "content": found.manifest.content}


def _settings(prefix: str, schema: Mapping[str, Any], defs: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    found = []
    for name, field in schema.get("properties", {}).items():
        inner = defs.get(field.get("$ref", "").rpartition("/")[2])
        if inner is not None and "properties" in inner:
            found += _settings(f"{prefix}.{name}", inner, defs)
        else:
            found.append((f"{prefix}.{name}", json.dumps(field.get("default"), ensure_ascii=False)[:60], field.get("description", "")))
    return found
