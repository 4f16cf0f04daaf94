"""What was made from what: read from manifests, back to the first page."""

from __future__ import annotations

from rich.tree import Tree

from data_contracts import Artifact, ArtifactError, Store
from data_contracts.errors import make_again
from stages.describe import lineage


def upstream(store: Store, artifact: Artifact) -> list[Artifact]:
    """`artifact` and everything that it was made from, each once, inputs after what they went into.

    An input that is no longer in the store is an ArtifactError: its manifest is the only witness of what came before.
    """
    found: dict[str, Artifact] = {}
    waiting = [artifact]
    while waiting:
        here = waiting.pop(0)
        if str(here) in found:
            continue
        found[str(here)] = here
        for role, ref in here.manifest.inputs.items():
            if not store.has(ref.noun, ref.id):
                raise ArtifactError(
                    f"{ref.noun}/{ref.id}",
                    f"{here} was made from it ({role}), it is not in the store",
                    make_again(),
                )
            waiting.append(store.open(ref.noun, ref.id, verify=False))
    return list(found.values())


def mermaid(store: Store, artifact: Artifact) -> str:
    """The same as a mermaid flow chart, inputs above."""
    return lineage.mermaid(one.manifest for one in reversed(upstream(store, artifact)))


def tree(store: Store, artifact: Artifact) -> Tree:
    """The same for a terminal; what was shown once is not unfolded again."""
    shown: set[str] = set()

    def grow(branch: Tree, role: str, here: Artifact) -> None:
        rows = ", ".join(f"{count:,} {table}" for table, count in here.manifest.rows.items())
        again = str(here) in shown
        leaf = branch.add(f"[bold]{role}[/] {here.id[:12]}  [dim]{here.manifest.stage}  {'(above)' if again else rows}[/]")
        if not again:
            shown.add(str(here))
            for name, ref in here.manifest.inputs.items():
                grow(leaf, name, store.open(ref.noun, ref.id, verify=False))

    upstream(store, artifact)  # says what is missing before anything is drawn
    root = Tree("", hide_root=True)
    grow(root, artifact.noun, artifact)
    return root
