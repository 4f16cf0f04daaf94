"""What was made from what: read from manifests, back to the first page."""

from __future__ import annotations

from rich.text import Text
from rich.tree import Tree

from data_contracts import Artifact, ArtifactError, Store
from data_contracts.errors import make_again
from data_contracts.foreign_text import line
from stages.reporting import lineage


def present(store: Store, artifact: Artifact) -> list[Artifact]:
    """`artifact` and what it was made from, each once, inputs after what they went into; as far as the store still has it."""
    found: dict[str, Artifact] = {}
    waiting = [artifact]
    while waiting:
        here = waiting.pop(0)
        if str(here) not in found:
            found[str(here)] = here
            waiting += [
                store.open(ref.artifact_type, ref.id, verify=False)
                for ref in here.manifest.inputs.values()
                if store.has(ref.artifact_type, ref.id)
            ]
    return list(found.values())


def upstream(store: Store, artifact: Artifact) -> list[Artifact]:
    """The same, and nothing is missing.

    An input that is no longer in the store is an ArtifactError: its manifest is the only witness of what came before.
    """
    found = present(store, artifact)
    known = {str(one) for one in found}
    for here in found:
        for output, ref in here.manifest.inputs.items():
            if f"{ref.artifact_type}/{ref.id}" not in known:
                raise ArtifactError(
                    f"{ref.artifact_type}/{ref.id}",
                    f"{here} was made from it ({output}), it is not in the store",
                    make_again(),
                )
    return found


def mermaid(store: Store, artifact: Artifact) -> str:
    """What is present as a mermaid flow chart, inputs above; what no longer is, dashed."""
    return lineage.mermaid(one.manifest for one in reversed(present(store, artifact)))


def tree(store: Store, artifact: Artifact) -> Tree:
    """The same for a terminal; what was shown once is not unfolded again."""
    shown: set[str] = set()

    def grow(branch: Tree, output: str, here: Artifact) -> None:
        rows = ", ".join(f"{count:,} {table}" for table, count in here.manifest.rows.items())
        again = str(here) in shown
        made = Text(line(f"{here.manifest.stage}  {'(above)' if again else rows}"), "dim")
        leaf = branch.add(Text.assemble((line(output), "bold"), f" {here.id[:12]}  ", made))
        if not again:
            shown.add(str(here))
            for name, ref in here.manifest.inputs.items():
                grow(leaf, name, store.open(ref.artifact_type, ref.id, verify=False))

    upstream(store, artifact)  # says what is missing before anything is drawn
    root = Tree("", hide_root=True)
    grow(root, artifact.artifact_type, artifact)
    return root
