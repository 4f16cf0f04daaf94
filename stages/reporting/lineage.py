"""The lineage of a run: every upstream artifact, as JSON and as a mermaid graph."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from data_contracts import Manifest


def lineage(manifests: Mapping[str, Manifest]) -> dict[str, Any]:
    """Describe each artifact: id, stage, settings, inputs, rows and digest of the content.

    The description contains neither times nor paths of the run.

    Args:
        manifests: By the name of the output.

    Returns:
        `artifacts`, by output, and `not_given`, the inputs whose manifest is not among them.
    """
    known = {manifest.id for manifest in manifests.values()}
    inputs = set()
    for manifest in manifests.values():
        inputs |= {(ref.artifact_type, ref.id) for ref in manifest.inputs.values()}
    not_given = []
    for artifact_type, id_ in sorted(inputs):
        if id_ not in known:
            not_given.append({"artifact_type": artifact_type, "id": id_})
    artifacts = {output: _entry(manifest) for output, manifest in manifests.items()}
    return {"artifacts": artifacts, "not_given": not_given}


def mermaid(manifests: Iterable[Manifest]) -> str:
    """Draw a flow chart, inputs above outputs. Inputs without a manifest are dashed."""
    by_id = {manifest.id: manifest for manifest in manifests}
    lines = ["flowchart TD"]
    lines += [_manifest_node(manifest) for manifest in by_id.values()]
    absent = {}
    edges = {}  # a dict, to keep the order of the manifests and each edge once
    for manifest in by_id.values():
        for ref in manifest.inputs.values():
            edges[ref.id, manifest.id] = f"  {_node_name(ref.id)} --> {_node_name(manifest.id)}"
            if ref.id not in by_id:
                absent[ref.id] = ref.artifact_type
    for id_, artifact_type in sorted(absent.items()):
        label = f"{_label(artifact_type)} {_label(id_[:8])}"
        lines.append(f'  {_node_name(id_)}["{label}"]:::absent')
    lines += edges.values()
    return "\n".join([*lines, "  classDef absent stroke-dasharray: 4 4", ""])


def _manifest_node(manifest: Manifest) -> str:
    artifact = f"{_label(manifest.artifact_type)} {_label(manifest.id[:8])}"
    label = f"<b>{_label(manifest.stage)}</b><br/>{artifact}"
    for table, count in manifest.rows.items():
        label += f"<br/>{count:,} {_label(table)}"
    return f'  {_node_name(manifest.id)}["{label}"]'


def _node_name(id_: str) -> str:
    """Return an id as the name of a node. A manifest is a file, so its id may be any text."""
    return re.sub(r"[^0-9A-Za-z]", "_", id_)


def _label(text: str) -> str:
    """Escape everything but words with mermaid's codes, so that no text is HTML or ends a node."""
    return re.sub(r"[^\w .,-]", lambda found: f"#{ord(found[0])};", text)


def _entry(manifest: Manifest) -> dict[str, Any]:
    inputs = {}
    for name, ref in manifest.inputs.items():
        inputs[name] = {"artifact_type": ref.artifact_type, "id": ref.id}
    return {
        "id": manifest.id,
        "artifact_type": manifest.artifact_type,
        "contract": manifest.contract,
        "stage": manifest.stage,
        "stage_version": manifest.stage_version,
        "as_of": manifest.as_of,
        "config": manifest.config,
        "inputs": inputs,
        "rows": manifest.rows,
        "files": len(manifest.files),
        "bytes": manifest.bytes,
        "content_sha256": manifest.content,
    }
