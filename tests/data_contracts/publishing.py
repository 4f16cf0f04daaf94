"""Publishes one artifact, as a program of its own that may be killed at any moment.

python -m tests.data_contracts.publishing STORE
    publishes, prints "made" or "reused", then the content digest
python -m tests.data_contracts.publishing STORE sweep 1
    kills a fork of itself at its 1st, 2nd, 3rd … step on the disk
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

from data_contracts import Artifact, Draft, GroundupError, Identity, Store, current

MADE, REUSED = 10, 11  # exit codes


def identity(
    artifact_type: str, config: dict[str, Any], version: object = None, **inputs: str
) -> Identity:
    """What a stage named test makes of `config`, by default under the current contract."""
    return Identity(
        "test", 1, f"{artifact_type} {version or current(artifact_type).version}", config, inputs
    )


IDENTITY = identity("raw_documents", {"n": 1})
FAILURE = {
    "url": "http://example.org/",
    "source": "s",
    "reason": "timeout",
    "detail": "after 10 s",
    "depth": 0,
}
ON_DISK = (
    "open",
    "os.rename",
    "os.mkdir",
    "os.remove",
    "os.rmdir",
    "os.link",
    "shutil.rmtree",
    "os.scandir",
    "os.listdir",
)


def make(draft: Draft) -> dict[str, Any]:
    """Two shards, a file, and a journal in the scratch folder that says how often work began."""
    with (draft.scratch / "journal").open("a") as journal:
        journal.write("begun\n")
    for shard in range(2):
        with draft.writer("failures", shard) as writer:
            writer.write([FAILURE] * (shard + 2))
    draft.path("warc/a.warc.gz").write_bytes(b"x" * 10_000)
    return {"n": 1}


def publish(store: Store) -> tuple[Artifact, bool]:
    return store.publish("raw_documents", IDENTITY, {}, {}, make)


def absent_or_whole(store: Store) -> bool:
    """Whether the artifact exists. Raises if it is not whole, or if anything else is visible."""
    if not store.has("raw_documents", IDENTITY.id):
        assert store.ids() == []
        return False
    store.open("raw_documents", IDENTITY.id).check()
    return True


def sweep(root: Path, stride: int) -> None:
    """Print how many kills it took until a run finished. Each fork dies `stride` steps later."""
    digests, killed, survived = set(), 0, 0
    while True:
        store = Store(root / str(killed))
        child = os.fork()
        if not child:
            _die_at(killed * stride + 1)
            publish(store)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            assert os.waitstatus_to_exitcode(status) == 0
            break
        there = absent_or_whole(store)
        journal = store.root / "drafts" / f"raw_documents-{IDENTITY.id}" / "scratch" / "journal"
        survived += not there and journal.exists() and journal.read_text().startswith("begun")
        artifact, made = publish(store)
        assert made is not there
        assert absent_or_whole(store)
        assert not list((store.root / "drafts").iterdir())
        digests.add(artifact.manifest.content)
        killed += 1
    print(f"{killed} kills, {survived} journals survived, {len(digests)} digest")


def race(root: Path, rounds: int) -> None:
    """Print how often one of two processes made the artifact and the other took it whole."""
    chance, good = random.Random(rounds), 0
    for number in range(rounds):
        store, children = Store(root / str(number)), []
        for offset in (0.0, chance.random() * 0.03):
            child = os.fork()
            if not child:
                time.sleep(offset)
                _, made = publish(store)
                os._exit(MADE if made else REUSED)
            children.append(child)
        words = sorted(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)
        good += words == [MADE, REUSED] and absent_or_whole(store)
    print(f"{good} of {rounds} rounds")


def _die_at(step: int) -> None:
    left = step

    def count(event: str, _: tuple[Any, ...]) -> None:
        nonlocal left
        if event in ON_DISK:
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)


if __name__ == "__main__":
    if sys.argv[2:3] == ["sweep"]:
        sweep(Path(sys.argv[1]), int(sys.argv[3]))
    elif sys.argv[2:3] == ["race"]:
        race(Path(sys.argv[1]), int(sys.argv[3]))
    else:
        try:
            published, made = publish(Store(sys.argv[1]))
        except GroundupError as error:
            sys.exit(f"{type(error).__name__}: {error}")
        print("made" if made else "reused", published.manifest.content)
