"""Contracts as pages: a README beside each YAML file, and an index in the README of the folder."""

from __future__ import annotations

from pathlib import Path

from open_data_contract_standard.model import SchemaProperty

from data_contracts.contract import SHIPPED, Contract, Contracts

BEGIN, END = "<!-- index: written by groundup contracts docs -->", "<!-- end of index -->"
_SIGNS = {
    "minimum": "≥ {}",
    "maximum": "≤ {}",
    "minLength": "length ≥ {}",
    "maxLength": "length ≤ {}",
    "minItems": "items ≥ {}",
    "maxItems": "items ≤ {}",
    "pattern": "`{}`",
}


def markdown(contract: Contract) -> str:
    """Return the page of one contract: every table, column, file and rule."""
    lines = [
        f"# {contract.artifact_type} {contract.version}",
        "",
        f"<!-- written from {contract.path.name} by: groundup contracts docs -->",
        "",
        contract.purpose,
        "",
        contract.usage,
    ]
    for table, described in contract.tables.items():
        lines += [
            "",
            f"## Table `{table}`",
            "",
            described.description or "",
            "",
            "| column | type | required | rule | meaning |",
            "|---|---|---|---|---|",
        ]
        for prop in contract.columns(table):
            for name, inner in _inside(str(prop.name), prop):
                lines.append(_row(name, inner))
    if contract.files:
        lines += ["", "## Files", "", "| name | path | required | meaning |", "|---|---|---|---|"]
    for rule in contract.files:
        cells = [rule.name, f"`{rule.glob}`", _yes(rule.required), _cell(rule.description)]
        lines.append(_line(cells))
    if contract.rules or contract.conservation:
        lines += ["", "## Rules", ""]
    for name in contract.rules:
        lines.append(f"- {name.replace('_', ' ')}")
    if contract.conservation:
        tables = " or ".join(contract.conservation.into)
        lines.append(
            f"- every row of {contract.conservation.source} is found again, once, in {tables}"
        )
    return "\n".join(lines) + "\n"


def index(contracts: Contracts = SHIPPED) -> str:
    """Return a table with one line per artifact type."""
    lines = [BEGIN, "| artifact type | version | what it is |", "|---|---|---|"]
    for artifact_type in contracts.artifact_types:
        contract = contracts.current(artifact_type)
        link = f"[{artifact_type}]({artifact_type}/README.md)"
        lines.append(f"| {link} | {contract.version} | {_cell(contract.purpose)} |")
    return "\n".join([*lines, END])


def pages(contracts: Contracts = SHIPPED) -> dict[Path, str]:
    """Return what every page should hold.

    The page of the folder keeps the text around its index.
    """
    made = {}
    for artifact_type in contracts.artifact_types:
        page = contracts.root / artifact_type / "README.md"
        made[page] = markdown(contracts.current(artifact_type))
    home = contracts.root / "README.md"
    text = home.read_text("utf-8") if home.exists() else f"# Contracts\n\n{BEGIN}{END}\n"
    before, _, rest = text.partition(BEGIN)
    made[home] = before + index(contracts) + rest.partition(END)[2]
    return made


def write(contracts: Contracts = SHIPPED) -> list[Path]:
    """Write the pages that are not up to date. Returns their paths."""
    changed = stale(contracts)
    for path in changed:
        path.write_text(pages(contracts)[path], "utf-8")
    return changed


def stale(contracts: Contracts = SHIPPED) -> list[Path]:
    """Return the pages that differ from what the contracts say."""
    found = []
    for path, text in pages(contracts).items():
        if not path.exists() or path.read_text("utf-8") != text:
            found.append(path)
    return found


def _inside(name: str, prop: SchemaProperty) -> list[tuple[str, SchemaProperty]]:
    """Return the column, and the items and fields inside it that have a rule or a description."""
    rows = [(name, prop)]
    items = prop.items
    if items is not None and items.properties:
        for child in items.properties:
            rows += _inside(f"{name}[].{child.name}", child)
    elif items is not None and (_rules(items) or items.description):
        rows += _inside(f"{name}[]", items)
    for child in prop.properties or []:
        rows += _inside(f"{name}.{child.name}", child)
    return rows


def _row(name: str, prop: SchemaProperty) -> str:
    kind = str(prop.physicalType)
    if prop.items is not None:
        kind = f"list of {prop.items.physicalType}"
    cells = [
        name,
        kind,
        _yes(bool(prop.required)),
        _cell(_rules(prop)),
        _cell(prop.description or ""),
    ]
    return _line(cells)


def _line(cells: list[str]) -> str:
    """Return a line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def _rules(prop: SchemaProperty) -> str:
    """Return the rules of a column, as a reader would write them."""
    rules = ["unique"] if prop.unique or prop.primaryKey else []
    if prop.logicalType == "number":
        rules.append("finite")
    for key, value in (prop.logicalTypeOptions or {}).items():
        rules.append(_SIGNS[key].format(value))
    if prop.enum:
        rules.append(" or ".join(f"`{choice.value}`" for choice in prop.enum))
    return ", ".join(rules)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _yes(required: bool) -> str:
    return "yes" if required else ""
