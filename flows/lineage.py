"""What an artifact was made from, back to the first page, as its manifests say."""

from __future__ import annotations

from collections.abc import Iterator

from rich.text import Text
from rich.tree import Tree

from data_contracts import Artifact, ArtifactError, Store
from data_contracts.errors import how_to_rebuild
from data_contracts.foreign_text import line
from stages.reporting import lineage


def present(store: Store, artifact: Artifact) -> list[Artifact]:
    """List an artifact and everything upstream of it that the store still has.

    Returns:
        Each artifact once, inputs after what was made of them.
    """
    found: dict[str, Artifact] = {}
    waiting = [artifact]
    while waiting:
        current = waiting.pop(0)
        if str(current) in found:
            continue
        found[str(current)] = current
        waiting += _inputs(store, current)
    return list(found.values())


def _inputs(store: Store, artifact: Artifact) -> Iterator[Artifact]:
    """Yield the inputs of an artifact that the store still has."""
    for ref in artifact.manifest.inputs.values():
        if store.has(ref.artifact_type, ref.id):
            yield store.open(ref.artifact_type, ref.id, verify=False)


def upstream(store: Store, artifact: Artifact) -> list[Artifact]:
    """List the same, and make sure that nothing is missing.

    Raises:
        ArtifactError: An input is no longer in the store. Only its manifest says what came before.
    """
    found = present(store, artifact)
    known = set(map(str, found))
    for consumer in found:
        for name, ref in consumer.manifest.inputs.items():
            reference = f"{ref.artifact_type}/{ref.id}"
            if reference not in known:
                raise ArtifactError(
                    reference,
                    f"{consumer} was made from it ({name}), it is not in the store",
                    how_to_rebuild(),
                )
    return found


def mermaid(store: Store, artifact: Artifact) -> str:
    """Draw the lineage as a mermaid flow chart, inputs first. What is missing is dashed."""
    return lineage.mermaid(one.manifest for one in reversed(present(store, artifact)))


def tree(store: Store, artifact: Artifact) -> Tree:
    """Draw the lineage for a terminal. An artifact that was drawn before is not unfolded again.

    Raises:
        ArtifactError: An input is no longer in the store.
    """
    upstream(store, artifact)  # reports what is missing before anything is drawn
    root = Tree("", hide_root=True)
    _grow(root, artifact.artifact_type, artifact, store, drawn=set())
    return root


def _grow(branch: Tree, name: str, artifact: Artifact, store: Store, drawn: set[str]) -> None:
    """Add `artifact`, which its consumer calls `name`, to the branch, and below it its inputs."""
    manifest = artifact.manifest
    is_drawn = str(artifact) in drawn
    if is_drawn:
        details = "(above)"
    else:
        details = ", ".join(f"{count:,} {table}" for table, count in manifest.rows.items())
    about = Text(line(f"{manifest.stage}  {details}"), "dim")
    leaf = branch.add(Text.assemble((line(name), "bold"), f" {artifact.id[:12]}  ", about))
    if is_drawn:
        return
    drawn.add(str(artifact))
    for input_name, ref in manifest.inputs.items():
        inner = store.open(ref.artifact_type, ref.id, verify=False)
        _grow(leaf, input_name, inner, store, drawn)
