"""Recipe smoke on made-up pages: what every stage makes, as ids and digests.

A change of the code's shape changes none of them. `recorded.json` has those that are the same on
every machine. Those of the stages that train, and of what follows from them, belong to one CPU. So
write them to a file before a change, and compare afterwards:

    python -m tests.golden.run before.json
    python -m tests.golden.run after.json && diff before.json after.json
    python -m tests.golden.run --threads 2 before2.json   # the same where threads share the rows
    python -m tests.golden.run --record      # after a change that is meant to change results
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import stages
from data_contracts import Artifact, Store
from data_contracts.store.identity import canonical
from flows import recipe
from stages.run import identity_of, run_stage
from tests.conftest import publisher
from tests.golden import pages

RECORDED = Path(__file__).parent / "recorded.json"
SAME_EVERYWHERE = (
    "crawl",
    "clean",
    "dedup",
    "collect_evals",
    "decontaminate",
    "train_tokenizer",
    "pack",
    "collect_chats",
)
# Another release of these may write other bytes.
WRITERS = ("pyarrow", "tokenizers", "datasketch", "numpy")


def releases() -> dict[str, str]:
    """Versions of the packages that decide on the bytes."""
    return {package: version(package) for package in WRITERS}


def run(folder: Path, names: Iterable[str], threads: int = 1) -> dict[str, Any]:
    """Run stages on the pages.

    Args:
        folder: Where the store goes.
        names: The stages, in the order of the map.
        threads: Threads that each training stage uses.

    Returns:
        "made": id, rows and the digest of each file, by stage. "ids": the ids of all stages.
    """
    archive = folder / "pages.warc.gz"
    pages.write(archive)
    store = Store(folder / "store")
    changes = [
        f'crawl.sources=[{{kind: files, name: site, paths: ["{archive}"]}}]',
        "collect_chats.pages=[]",
        "collect_chats.kinds=[section, prose, identity]",
        "pretrain.training.duration=20",
        "sft.training.duration=5",
        *(f"{stage}.compute.threads={threads}" for stage in ("pretrain", "sft", "dpo")),
    ]
    configs = recipe.load("smoke", changes).configs
    made: dict[str, Any] = {}
    outputs: dict[str, Artifact] = {}
    for name in names:
        row = stages.stage(name)
        inputs = {
            taken.name: outputs[taken.output] for taken in row.consumes if taken.output in outputs
        }
        artifact, _ = run_stage(store, row, configs[name], inputs)
        made[name] = {"id": artifact.id, "rows": artifact.manifest.rows, "files": digests(artifact)}
        outputs[row.output] = artifact
        if name == "crawl":
            # The path of the archive is a part of the id, and it is another one in each folder.
            config = canonical(artifact.manifest.config)
            for path in (archive.resolve(), archive):
                config = config.replace(str(path), archive.name)
            made[name]["id"] = hashlib.sha256(config.encode()).hexdigest()
            tables = {table: artifact.read(table).to_pylist() for table in artifact.manifest.rows}
            outputs[row.output] = publisher(store)("raw_documents", **tables)
    return {"made": made, "ids": _ids(configs, outputs["raw_documents"])}


def _ids(configs: dict[str, Any], raw_documents: Artifact) -> dict[str, str]:
    """The ids of what all stages would make. They follow from settings and inputs alone."""
    ids = {"raw_documents": raw_documents.id}
    by_stage = {}
    for row in stages.STAGES[1:]:
        inputs = {taken.name: ids[taken.output] for taken in row.consumes if taken.output in ids}
        identity = identity_of(row, configs[row.name], inputs, "2026-01-31")
        by_stage[row.name] = ids[row.output] = identity.id
    return by_stage


def digests(artifact: Artifact) -> dict[str, str]:
    """sha256 of each file."""
    return {entry.path: entry.sha256 for entry in artifact.manifest.files}


def main() -> None:
    """Write what all stages make to a file, or record what is the same everywhere."""
    parser = argparse.ArgumentParser(description="Run recipe smoke on made-up pages.")
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("file", nargs="?", type=Path, help="where ids and digests are written")
    target.add_argument("--record", action="store_true", help=f"write {RECORDED.name} instead")
    parser.add_argument("--threads", type=int, default=1, help="of each stage that trains")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        names = SAME_EVERYWHERE if given.record else stages.NAMES
        results = run(Path(folder), names, given.threads)
    text = json.dumps({"releases": releases(), **results}, indent=1, sort_keys=True)
    path = RECORDED if given.record else given.file
    path.write_text(f"{text}\n", "utf-8")


if __name__ == "__main__":
    main()
