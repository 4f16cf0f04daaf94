"""Tables for people and JSON for programs: the same rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

import stages
from data_contracts.credentials import masked_values
from data_contracts.foreign_text import json_text, line
from flows.cli.console import cell, out
from stages import Stage

if TYPE_CHECKING:
    from data_contracts import Artifact, Store
    from data_contracts.store.artifact import Manifest
    from data_contracts.store.refs import Ref
    from flows.preview import Step

_COLOURS = {"up to date": "green", "reuse": "cyan", "build": "yellow"}


def as_json(value: Any) -> None:
    """Print a value for programs; where that is a terminal, it is as safe as a table."""
    print(json_text(json.dumps(masked_values(value), indent=1, ensure_ascii=False)))


def rows(found: Sequence[Mapping[str, Any]], json_: bool, empty: str) -> None:
    """Any list of equal mappings."""
    if json_:
        as_json(list(found))
    elif not found:
        out.print(empty)
    else:
        table = Table(box=None, pad_edge=False, header_style="dim")
        for number, column in enumerate(found[0]):
            table.add_column(
                column, overflow="fold", no_wrap=number == 0
            )  # a name that is cut in two cannot be copied
        for row in found:
            table.add_row(*(Text(cell(value)) for value in row.values()))
        out.print(table, soft_wrap=False)


def steps(planned: Sequence[Step], name: str | None, json_: bool) -> None:
    """What would run, and why."""
    if json_:
        as_json(
            [
                {
                    "stage": s.stage.name,
                    "status": s.status,
                    "reasons": list(s.reasons),
                    "artifact": "/".join(s.artifact_key),
                }
                for s in planned
            ]
        )
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("stage", "", "why"):
        table.add_column(column, overflow="fold", no_wrap=column != "why")
    for step in planned:
        table.add_row(
            step.stage.name,
            f"[{_COLOURS[step.status]}]{step.status}[/]",
            Text(line("; ".join(step.reasons))),
        )
    out.print(table, soft_wrap=False)
    counts = {status: sum(step.status == status for step in planned) for status in _COLOURS}
    told = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    out.print(f"\n{name or 'these artifacts'}: {told}. Nothing was run.", markup=False)


def keys(stage: Stage, json_: bool) -> None:
    """Inputs and settings of a stage."""
    settings = settings_of(stage)
    inputs = [
        {
            "input": i.name,
            "contract": f"{i.artifact_type} {i.major}.x",
            "default": f"NAME/{i.output}",
        }
        for i in stage.consumes
    ]
    if json_:
        as_json(
            {
                "stage": stage.name,
                "produces": stage.produces,
                "inputs": inputs,
                "settings": settings,
            }
        )
        return
    out.print(f"[bold]{stage.name}[/] makes {stage.produces} (NAME/{stage.output})\n")
    rows(inputs, False, empty="no inputs")
    for setting in settings:
        out.print()
        out.print(Text(setting["key"], "bold"), Text(_default(setting), "cyan"), sep="  ")
        out.print(Padding(Text(setting["what"]), (0, 0, 0, 4), expand=False), soft_wrap=False)


def settings_of(stage: Stage) -> list[dict[str, Any]]:
    """Every setting of a stage by its whole key, with its default and what it does."""
    schema = stage.config_class.model_json_schema()
    return _settings(stage.name, schema, schema.get("$defs", {}))


def run(store: Store, name: str, json_: bool) -> None:
    """`groundup show RUN`: what it followed, and what it has."""
    followed = store.refs.recipe(name)
    recipe = followed.recipe if followed else None
    changes = list(followed.changes) if followed else []
    if json_:
        artifacts = _described(_in_order(store, name), _manifests(store, name))
        as_json({"name": name, "recipe": recipe, "changes": changes, "artifacts": artifacts})
        return
    out.print(
        Text(name, "bold"), Text(f"recipe {recipe}" if recipe else "made stage by stage"), sep="  "
    )
    for change in changes:
        out.print(Text(f"  --set {change}"))
    refs(store, name, False)
    out.print(f"\nMore of one: groundup show {name}/OUTPUT")


def refs(store: Store, name: str, json_: bool) -> None:
    """`groundup ls NAME`."""
    found, made = _in_order(store, name), _manifests(store, name)
    if json_:
        as_json(_described(found, made))
        return
    shown = [
        {
            "artifact": output,
            "id": found[output].id[:12],
            "rows": counts(manifest)
            if manifest
            else f"missing: groundup stage {found[output].stage} --name {name}",
            "MB": round(manifest.bytes / 1e6, 2) if manifest else "–",
            "finished, UTC": manifest.finished[:16].replace("T", " ") if manifest else "–",
        }
        for output, manifest in made.items()
    ]
    rows(shown, False, empty="")


def _in_order(store: Store, name: str) -> dict[str, Ref]:
    """What a run has, in the order in which it is made."""
    order = {row.output: number for number, row in enumerate(stages.STAGES)}
    found = store.refs.outputs(name)
    return {
        output: found[output]
        for output in sorted(found, key=lambda output: order.get(output, len(order)))
    }


def _manifests(store: Store, name: str) -> dict[str, Manifest | None]:
    """Of each artifact of a run; None for one that is gone."""
    return {
        output: store.open(p.artifact_type, p.id, verify=False).manifest
        if store.has(p.artifact_type, p.id)
        else None
        for output, p in _in_order(store, name).items()
    }


def _described(
    found: Mapping[str, Ref], made: Mapping[str, Manifest | None]
) -> list[dict[str, Any]]:
    return [
        {"artifact": output, **p.model_dump(), **_sizes(made[output])}
        for output, p in found.items()
    ]


def _sizes(manifest: Manifest | None) -> dict[str, Any]:
    if manifest is None:
        return {"missing": True}
    return {
        "stage": manifest.stage,
        "rows": manifest.rows,
        "bytes": manifest.bytes,
        "finished": manifest.finished,
        "missing": False,
    }


def counts(manifest: Manifest) -> str:
    """ "1,426 train, 66 heldout": the rows of each table."""
    return line(", ".join(f"{count:,} {table}" for table, count in manifest.rows.items()))


def artifact(store: Store, found: Artifact) -> dict[str, Any]:
    """An artifact as JSON, without its list of files."""
    return found.manifest.model_dump(mode="json", exclude={"files"}) | {
        "path": str(found.folder),
        "content": found.manifest.content,
    }


def _settings(
    prefix: str, schema: Mapping[str, Any], defs: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Every key below `prefix`, those of groups and of each kind of a list's items too."""
    found = []
    for name, field in schema.get("properties", {}).items():
        key = f"{prefix}.{name}"
        if "$ref" in field and "properties" in (group := _definition(defs, field["$ref"])):
            found += _settings(key, group, defs)
            continue
        required = name in schema.get("required", [])
        found.append(
            {
                "key": key,
                "default": field.get("default"),
                "required": required,
                "what": field.get("description", ""),
            }
        )
        for kind, ref in field.get("items", {}).get("discriminator", {}).get("mapping", {}).items():
            found += _settings(f"{key}[{kind}]", _definition(defs, ref), defs)
    return found


def _definition(defs: Mapping[str, Any], ref: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = defs[ref.rpartition("/")[2]]
    return found


def _default(setting: Mapping[str, Any]) -> str:
    text = json.dumps(setting["default"], ensure_ascii=False)
    return "required" if setting["required"] else text if len(text) <= 60 else text[:59] + "…"
