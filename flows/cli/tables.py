"""Tables for people and JSON for programs, from the same rows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
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
    from flows.preview import PlannedStage

MAX_DEFAULT_LENGTH = 60  # characters of a default value
_COLOURS = {"up to date": "green", "reuse": "cyan", "build": "yellow"}


@dataclass(frozen=True)
class Setting:
    """One setting of a stage.

    Attributes:
        key: Its whole key, e.g. "dedup.threshold".
        default: Its default value.
        required: Whether it has none.
        what: What it does.
    """

    key: str
    default: Any
    required: bool
    what: str

    @property
    def default_text(self) -> str:
        """The default value for people."""
        if self.required:
            return "required"
        text = json.dumps(self.default, ensure_ascii=False)
        if len(text) > MAX_DEFAULT_LENGTH:
            return text[: MAX_DEFAULT_LENGTH - 1] + "…"
        return text


@dataclass(frozen=True)
class Output:
    """One output of a run.

    Attributes:
        name: The output.
        ref: What points at its artifact.
        manifest: The manifest of the artifact; None if the artifact is missing.
    """

    name: str
    ref: Ref
    manifest: Manifest | None


def as_json(value: Any) -> None:
    """Print a value for programs. On a terminal it is as safe as a table."""
    print(json_text(json.dumps(masked_values(value), indent=1, ensure_ascii=False)))


def rows(mappings: Sequence[Mapping[str, Any]], json_: bool, empty: str) -> None:
    """Print mappings with the same keys as a table.

    Args:
        mappings: The rows.
        json_: Whether to print JSON instead.
        empty: What to print if there are no rows.
    """
    if json_:
        as_json(list(mappings))
    elif not mappings:
        out.print(empty)
    else:
        table = _table()
        for number, column in enumerate(mappings[0]):
            # A name that is cut in two cannot be copied.
            table.add_column(column, overflow="fold", no_wrap=number == 0)
        for row in mappings:
            table.add_row(*[Text(cell(value)) for value in row.values()])
        out.print(table, soft_wrap=False)


def _table() -> Table:
    return Table(box=None, pad_edge=False, header_style="dim")


def planned_stages(planned: Sequence[PlannedStage], run: str | None, json_: bool) -> None:
    """Print what would run, and why."""
    if json_:
        as_json(list(map(_planned_row, planned)))
        return
    table = _table()
    for column in ("stage", "", "why"):
        table.add_column(column, overflow="fold", no_wrap=column != "why")
    for planned_stage in planned:
        status = f"[{_COLOURS[planned_stage.status]}]{planned_stage.status}[/]"
        table.add_row(
            planned_stage.stage.name, status, Text(line("; ".join(planned_stage.reasons)))
        )
    out.print(table, soft_wrap=False)
    counts: Counter[str] = Counter(planned_stage.status for planned_stage in planned)
    labels = {"up to date": "up to date", "reuse": "to reuse", "build": "to build"}
    parts = [f"{counts[status]} {labels[status]}" for status in _COLOURS if counts[status]]
    subject = f"{run}: " if run else ""
    out.print(f"\n{subject}{', '.join(parts)}. Nothing was run.", markup=False)


def _planned_row(planned_stage: PlannedStage) -> dict[str, Any]:
    return {
        "stage": planned_stage.stage.name,
        "status": planned_stage.status,
        "reasons": list(planned_stage.reasons),
        "artifact": "/".join(planned_stage.type_and_id),
    }


def keys(stage: Stage, json_: bool) -> None:
    """Print the inputs and the settings of a stage."""
    settings = settings_of(stage)
    inputs = []
    for taken in stage.consumes:
        contract = f"{taken.artifact_type} {taken.major}.x"
        default = f"NAME/{taken.output}"
        inputs.append({"input": taken.name, "contract": contract, "default": default})
    if json_:
        as_json(
            {
                "stage": stage.name,
                "produces": stage.produces,
                "inputs": inputs,
                "settings": list(map(asdict, settings)),
            }
        )
        return
    out.print(f"[bold]{stage.name}[/] makes {stage.produces} (NAME/{stage.output})\n")
    rows(inputs, False, empty="no inputs")
    for setting in settings:
        out.print()
        out.print(Text(setting.key, "bold"), Text(setting.default_text, "cyan"), sep="  ")
        out.print(Padding(Text(setting.what), (0, 0, 0, 4), expand=False), soft_wrap=False)


def settings_of(stage: Stage) -> list[Setting]:
    """List every setting of a stage, those of groups and of items in lists, too."""
    schema = stage.config_class.model_json_schema()
    return list(_settings(stage.name, schema, schema.get("$defs", {})))


def _settings(
    prefix: str, schema: Mapping[str, Any], definitions: Mapping[str, Any]
) -> Iterator[Setting]:
    """Yield the settings below `prefix` in a JSON schema."""
    for name, field in schema.get("properties", {}).items():
        key = f"{prefix}.{name}"
        group = _definition(definitions, field.get("$ref", ""))
        if "properties" in group:
            yield from _settings(key, group, definitions)
            continue
        yield Setting(
            key=key,
            default=field.get("default"),
            required=name in schema.get("required", []),
            what=field.get("description", ""),
        )
        kinds = field.get("items", {}).get("discriminator", {}).get("mapping", {})
        for kind, reference in kinds.items():
            item = _definition(definitions, reference)
            yield from _settings(f"{key}[{kind}]", item, definitions)


def _definition(definitions: Mapping[str, Any], reference: str) -> Mapping[str, Any]:
    """Return the definition of "#/$defs/NAME"; empty if there is none."""
    definition: Mapping[str, Any] = definitions.get(reference.rpartition("/")[2], {})
    return definition


def run(store: Store, name: str, json_: bool) -> None:
    """Print the recipe of a run, and what the run has: `groundup show RUN`."""
    followed = store.refs.recipe(name)
    recipe = followed.recipe if followed else None
    changes = list(followed.changes) if followed else []
    if json_:
        as_json(
            {
                "name": name,
                "recipe": recipe,
                "changes": changes,
                "settings": followed.settings if followed else {},
                "artifacts": list(map(_output_row, _outputs(store, name))),
            }
        )
        return
    about = f"recipe {recipe}" if recipe else "made stage by stage"
    out.print(Text(name, "bold"), Text(about), sep="  ")
    for change in changes:
        out.print(Text(f"  --set {change}"))
    refs(store, name, False)
    out.print(f"\nFor details of an artifact: groundup show {name}/OUTPUT")


def refs(store: Store, name: str, json_: bool) -> None:
    """Print what a run has: `groundup ls RUN`."""
    outputs = _outputs(store, name)
    if json_:
        as_json(list(map(_output_row, outputs)))
        return
    table = []
    for output in outputs:
        row: dict[str, Any] = {"artifact": output.name, "id": output.ref.id[:12]}
        manifest = output.manifest
        if manifest:
            row["rows"] = counts(manifest)
            row["MB"] = round(manifest.bytes / 1e6, 2)
            row["finished, UTC"] = manifest.finished[:16].replace("T", " ")
        else:
            row["rows"] = f"missing: groundup stage {output.ref.stage} --name {name}"
            row["MB"] = row["finished, UTC"] = "–"
        table.append(row)
    rows(table, False, empty="")


def _outputs(store: Store, name: str) -> list[Output]:
    """Return the outputs of a run, in the order in which a run makes them."""
    order = {stage.output: number for number, stage in enumerate(stages.STAGES)}
    refs_by_output = store.refs.outputs(name)
    outputs = []
    for output in sorted(refs_by_output, key=lambda output: order.get(output, len(order))):
        ref = refs_by_output[output]
        manifest = None
        if store.has(*ref.key):
            manifest = store.open(*ref.key, verify=False).manifest
        outputs.append(Output(output, ref, manifest))
    return outputs


def _output_row(output: Output) -> dict[str, Any]:
    row = {"artifact": output.name, **output.ref.model_dump()}
    manifest = output.manifest
    if manifest is None:
        return row | {"missing": True}
    return row | {
        "stage": manifest.stage,
        "rows": manifest.rows,
        "bytes": manifest.bytes,
        "finished": manifest.finished,
        "missing": False,
    }


def counts(manifest: Manifest) -> str:
    """Format the rows of each table: "1,426 train, 66 heldout"."""
    return line(", ".join(f"{count:,} {table}" for table, count in manifest.rows.items()))


def artifact(store: Store, made: Artifact) -> dict[str, Any]:
    """Return an artifact for `--json`, without its list of files."""
    return made.manifest.model_dump(mode="json", exclude={"files"}) | {
        "path": str(made.folder),
        "content": made.manifest.content,
    }
