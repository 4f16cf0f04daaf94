"""What was made from what: every artifact upstream, as JSON and as a mermaid graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from data_contracts import Manifest


def lineage(manifests: Mapping[str, Manifest]) -> dict[str, Any]:
    """By role: id, stage, settings, inputs, rows and digest of the content. No clock and no place of the run is in it.

    `not_given` lists inputs whose own manifest is not among them.
    """
    known = {manifest.id for manifest in manifests.values()}
    inputs = {(ref.noun, ref.id) for manifest in manifests.values() for ref in manifest.inputs.values()}
    return {
        "artifacts": {role: _entry(manifest) for role, manifest in manifests.items()},
        "not_given": [{"noun": noun, "id": id_} for noun, id_ in sorted(inputs) if id_ not in known],
    }


def mermaid(manifests: Iterable[Manifest]) -> str:
    """A flow chart, inputs above what was made of them; inputs without a manifest are dashed."""
    given = list({manifest.id: manifest for manifest in manifests}.values())
    lines = ["flowchart TD"]
    for manifest in given:
        rows = "".join(f"<br/>{count:,} {table}" for table, count in manifest.rows.items())
        lines.append(f'  {manifest.id}["<b>{manifest.stage}</b><br/>{manifest.noun} {manifest.id[:8]}{rows}"]')
    refs = [(ref, manifest.id) for manifest in given for ref in manifest.inputs.values()]
    known = {manifest.id for manifest in given}
    absent = {ref.id: ref.noun for ref, _ in refs if ref.id not in known}
    lines += [f'  {id_}["{noun} {id_[:8]}"]:::absent' for id_, noun in sorted(absent.items())]
    lines += [f"  {source} --> {made}" for source, made in dict.fromkeys((ref.id, made) for ref, made in refs)]
    return "\n".join([*lines, "  classDef absent stroke-dasharray: 4 4", ""])


def _entry(manifest: Manifest) -> dict[str, Any]:
    return {
        "id": manifest.id, "noun": manifest.noun, "contract": manifest.contract, "stage": manifest.stage,
        "stage_version": manifest.stage_version, "as_of": manifest.as_of, "config": manifest.config,
        "inputs": {role: {"noun": ref.noun, "id": ref.id} for role, ref in manifest.inputs.items()},
        "rows": manifest.rows, "files": len(manifest.files), "bytes": manifest.bytes, "content_sha256": manifest.content,
    }  # fmt: skip
