"""What was made from what: every artifact upstream, as JSON and as a mermaid graph."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from data_contracts import Manifest


def lineage(manifests: Mapping[str, Manifest]) -> dict[str, Any]:
    """By output: id, stage, settings, inputs, rows and digest of the content. No clock and no place of the run is in it.

    `not_given` lists inputs whose own manifest is not among them.
    """
    known = {manifest.id for manifest in manifests.values()}
    inputs = {
        (ref.artifact_type, ref.id)
        for manifest in manifests.values()
        for ref in manifest.inputs.values()
    }
    return {
        "artifacts": {output: _entry(manifest) for output, manifest in manifests.items()},
        "not_given": [
            {"artifact_type": artifact_type, "id": id_}
            for artifact_type, id_ in sorted(inputs)
            if id_ not in known
        ],
    }


def mermaid(manifests: Iterable[Manifest]) -> str:
    """A flow chart, inputs above what was made of them; inputs without a manifest are dashed."""
    given = list({manifest.id: manifest for manifest in manifests}.values())
    lines = ["flowchart TD"]
    for manifest in given:
        rows = "".join(f"<br/>{count:,} {_label(table)}" for table, count in manifest.rows.items())
        made = f"<b>{_label(manifest.stage)}</b><br/>{_label(manifest.artifact_type)} {_label(manifest.id[:8])}"
        lines.append(f'  {_node(manifest.id)}["{made}{rows}"]')
    refs = [(ref, manifest.id) for manifest in given for ref in manifest.inputs.values()]
    known = {manifest.id for manifest in given}
    absent = {ref.id: ref.artifact_type for ref, _ in refs if ref.id not in known}
    for id_, artifact_type in sorted(absent.items()):
        lines.append(f'  {_node(id_)}["{_label(artifact_type)} {_label(id_[:8])}"]:::absent')
    lines += [
        f"  {_node(source)} --> {_node(made)}"
        for source, made in dict.fromkeys((ref.id, made) for ref, made in refs)
    ]
    return "\n".join([*lines, "  classDef absent stroke-dasharray: 4 4", ""])


def _node(id_: str) -> str:
    """An id as the name of a node. A manifest is a file, and may say anything."""
    return re.sub(r"[^0-9A-Za-z]", "_", id_)


def _label(text: str) -> str:
    """Text in a node that is neither HTML nor the end of the node: all but words as mermaid's own codes."""
    return re.sub(r"[^\w .,-]", lambda found: f"#{ord(found[0])};", text)


def _entry(manifest: Manifest) -> dict[str, Any]:
    return {
        "id": manifest.id, "artifact_type": manifest.artifact_type, "contract": manifest.contract, "stage": manifest.stage,
        "stage_version": manifest.stage_version, "as_of": manifest.as_of, "config": manifest.config,
        "inputs": {output: {"artifact_type": ref.artifact_type, "id": ref.id} for output, ref in manifest.inputs.items()},
        "rows": manifest.rows, "files": len(manifest.files), "bytes": manifest.bytes, "content_sha256": manifest.content,
    }  # fmt: skip
