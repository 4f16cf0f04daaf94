"""Whatever happens, an artifact is absent or whole, and a rerun gives the same bytes."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_contracts import ArtifactError, Store
from data_contracts.files import listing
from data_contracts.store.entries import FolderStorage
from data_contracts.store.refs import Refs
from tests.data_contracts import publishing

pytestmark = pytest.mark.slow

PUBLISH = [sys.executable, "-m", "tests.data_contracts.publishing"]
DRAFT = f"drafts/raw_documents-{publishing.IDENTITY.id}/files"
TOUCHED = [
    "",
    "objects",
    "objects/raw_documents",
    f"objects/raw_documents/{publishing.IDENTITY.id}",
    DRAFT,
    *(
        f"{DRAFT}/{name}"
        for name in (
            "failures",
            "documents",
            "warc",
            "failures/part-00000.parquet",
            "failures/part-00001.parquet",
            "documents/part-00000.parquet",
            "warc/a.warc.gz",
            "manifest.json",
        )
    ),
]


@pytest.fixture(scope="module")
def digest(tmp_path_factory) -> str:
    """The content digest of a run that nothing disturbed."""
    return publishing.publish(Store(tmp_path_factory.mktemp("undisturbed")))[0].manifest.content


@pytest.mark.parametrize("stride", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_at_any_step_it_is_absent_or_whole_and_a_rerun_gives_the_same_bytes(
    stride, tmp_path
):
    done = subprocess.run(
        [*PUBLISH, str(tmp_path), "sweep", str(stride)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    kills, _, journals, *_ = done.stdout.split()
    assert int(kills) * stride > 40, "the sweep no longer sees the steps of a publish"
    assert int(journals) * stride > 20, "scratch does not outlive a kill"
    assert done.stdout.strip().endswith("1 digest")


def stopped_at(root: Path, call: str, fault: str, number: int) -> subprocess.CompletedProcess[str]:
    """A publish whose `number`-th `call` on a file of the store meets `fault`."""
    paths = [word for path in TOUCHED for word in ("-P", str(root / path))]
    inject = ["-e", f"trace={call}", "-e", f"inject={call}:{fault}:when={number}"]
    return subprocess.run(
        ["strace", "-f", "-o", str(root) + ".log", *paths, *inject, *PUBLISH, str(root)],
        capture_output=True,
        text=True,
    )


needs_strace = pytest.mark.skipif(
    not shutil.which("strace"), reason="strace is not installed (apt-get install strace)"
)


@pytest.mark.slow
@needs_strace
@pytest.mark.parametrize(
    ("call", "step"),
    [
        ("openat", 4),
        ("mkdir,mkdirat", 1),
        ("write,pwrite64", 4),
        ("fsync", 1),
        ("rename,renameat,renameat2", 1),
    ],
)
def test_killed_at_the_nth_system_call_it_is_absent_or_whole(call, step, tmp_path, digest):
    for number in range(1, 200, step):
        root = tmp_path / str(number)
        root.mkdir()
        died = stopped_at(root, call, "signal=KILL", number).returncode != 0
        store = Store(root)
        there = publishing.absent_or_whole(store)
        assert there or died
        artifact, made = publishing.publish(store)
        assert (artifact.manifest.content, made) == (digest, not there)
        if not died:
            break
    assert number > 1, f"{call} was never called"
    assert not died


@pytest.mark.slow
@needs_strace
@pytest.mark.parametrize(
    ("call", "step", "error", "message"),
    [
        ("write,pwrite64", 5, "ENOSPC", "the disk is full"),
        ("write,pwrite64", 5, "EIO", "the disk reports an I/O error"),
        ("fsync", 2, "EIO", "the disk reports an I/O error"),
        ("mkdir,mkdirat", 2, "ENOSPC", "the disk is full"),
        ("rename,renameat,renameat2", 1, "EIO", "the disk reports an I/O error"),
        ("openat", 3, "EROFS", "the filesystem is read-only"),
    ],
)
def test_a_disk_fault_at_the_nth_call_is_one_named_error_and_a_rerun_repairs_it(
    call, step, error, message, tmp_path, digest
):
    for number in range(1, 200, step):
        root = tmp_path / str(number)
        root.mkdir()
        done = stopped_at(root, call, f"error={error}", number)
        assert "Traceback" not in done.stderr
        store = Store(root)
        there = publishing.absent_or_whole(store)
        if done.returncode:
            assert done.stderr.startswith("ArtifactError: ")
            assert message in done.stderr
        assert publishing.publish(store)[0].manifest.content == digest
        if "INJECTED" not in Path(f"{root}.log").read_text():
            break
        assert done.returncode or there
    assert number > 1, f"{call} was never called"


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], capture_output=True
    ).returncode:
        pytest.skip("this user may not mount a small filesystem")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def random_documents(draft, megabytes: int) -> None:
    with draft.writer("failures") as writer:
        for number in range(megabytes * 16):
            writer.write(
                [publishing.FAILURE | {"detail": random.Random(number).randbytes(32768).hex()}]
            )


def test_a_full_disk_is_reported_in_megabytes_and_work_goes_on_when_there_is_space(small_disk):
    store = Store(small_disk / "store")
    (small_disk / "ballast").write_bytes(b"x" * (5 << 20))

    def make(draft):
        (draft.scratch / "kept").write_text("kept")
        random_documents(draft, 6)
        return {}

    with pytest.raises(
        ArtifactError,
        match=r"the disk is full \([1-9]\.\d MB of it were written, \d\.\d MB are free\)",
    ):
        store.publish("raw_documents", publishing.IDENTITY, {}, {}, make)
    assert store.ids() == []
    folder = store.root / "drafts" / f"raw_documents-{publishing.IDENTITY.id}"
    assert [path.name for path in folder.iterdir()] == ["scratch"], "the space of a draft is freed"
    (small_disk / "ballast").unlink()
    artifact, made = store.publish("raw_documents", publishing.IDENTITY, {}, {}, make)
    assert made
    artifact.verify()


def test_a_full_disk_is_recognised_when_a_library_wraps_it(store):
    def make(draft):
        raise RuntimeError("I/O error: No space left on device (os error 28)")

    with pytest.raises(ArtifactError, match="the disk is full"):
        store.publish("raw_documents", publishing.IDENTITY, {}, {}, make)


def test_a_filesystem_without_locks_is_reported_before_any_work(store, monkeypatch):
    def refuse(handle, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(ArtifactError, match="its filesystem gives no lock: No locks available"):
        store.publish(
            "raw_documents", publishing.IDENTITY, {}, {}, lambda draft: pytest.fail("work began")
        )


def test_a_fault_of_the_disk_is_reported_though_the_draft_cannot_be_measured(store, monkeypatch):
    def make(draft):
        monkeypatch.setattr("data_contracts.store.disk.listing", make)
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(ArtifactError, match="the disk reports an I/O error"):
        store.publish("raw_documents", publishing.IDENTITY, {}, {}, make)


def test_an_input_of_the_user_that_may_not_be_read_is_not_blamed_on_the_store(store):
    def make(draft):
        raise PermissionError(13, "Permission denied", "/root/pages.txt")

    with pytest.raises(PermissionError):
        store.publish("raw_documents", publishing.IDENTITY, {}, {}, make)


def test_a_folder_that_may_not_be_written_is_reported_before_any_work(tmp_path):
    store = Store(tmp_path / "store")
    store.root.mkdir(mode=0o500)
    root = os.geteuid() == 0
    if root:  # for whom permissions do not count
        os.seteuid(65534)
    try:
        with pytest.raises(ArtifactError, match="permission is denied"):
            store.publish(
                "raw_documents",
                publishing.IDENTITY,
                {},
                {},
                lambda draft: pytest.fail("work began"),
            )
    finally:
        if root:
            os.seteuid(0)


def test_a_file_where_a_folder_should_be_is_one_clear_error(tmp_path):
    (tmp_path / "objects").write_text("")
    with pytest.raises(ArtifactError, match="a file is where a folder should be"):
        publishing.publish(Store(tmp_path))


def test_objects_on_another_filesystem_are_refused_before_any_work(small_disk, tmp_path):
    store = Store(tmp_path / "store")
    objects = store.root / "objects"
    objects.mkdir(parents=True)
    subprocess.run(["mount", "--bind", small_disk, objects], check=True)
    try:
        with pytest.raises(ArtifactError, match="are on two filesystems"):
            store.publish(
                "raw_documents",
                publishing.IDENTITY,
                {},
                {},
                lambda draft: pytest.fail("work began"),
            )
    finally:
        subprocess.run(["umount", objects], check=True)


def test_a_folder_that_cannot_be_read_is_an_error_and_never_an_empty_folder(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError):
        listing(tmp_path)


def test_the_remains_of_a_dead_run_are_cleared_away(store, digest):
    files = store.root / DRAFT
    files.mkdir(parents=True)
    (files / "junk").write_text("junk")
    (files / "failures").symlink_to("/")
    assert publishing.publish(store)[0].manifest.content == digest


@pytest.mark.parametrize("rounds", [5, pytest.param(50, marks=pytest.mark.slow)])
def test_of_two_processes_one_makes_it_and_the_other_takes_it(rounds, tmp_path):
    done = subprocess.run(
        [*PUBLISH, str(tmp_path), "race", str(rounds)], capture_output=True, text=True, timeout=300
    )
    assert done.stdout.strip() == f"{rounds} of {rounds} rounds", done.stdout + done.stderr


POINT = """
import sys
from pathlib import Path
from data_contracts.files import listing
from data_contracts.store.entries import FolderStorage
from data_contracts.store.refs import Ref, Refs
refs = Refs(FolderStorage(Path(sys.argv[1])))
for n in range(40):
    id = f"{int(sys.argv[2]):012x}{n:012x}"
    facts = {"at": "now", "run": "r", "stage": "s", "settings": {}, "as_of": None}
    ref = Ref(artifact_type="tokenizer", id=id, **facts)
    assert refs.set("demo", "output", ref)
"""


def test_refs_never_lose_an_update(tmp_path):
    writers = [
        subprocess.Popen([sys.executable, "-c", POINT, str(tmp_path), str(w)]) for w in range(3)
    ]
    assert [writer.wait(300) for writer in writers] == [0, 0, 0]
    history = [ref.id for ref in Refs(FolderStorage(tmp_path)).history("demo", "output")]
    assert sorted(history) == sorted(f"{w:012x}{n:012x}" for w in range(3) for n in range(40))
    for w in range(3):
        mine = [entry for entry in history if entry.startswith(f"{w:012x}")]
        assert mine == [f"{w:012x}{n:012x}" for n in range(40)], (
            "updates of one writer keep their order"
        )
    assert not [
        path for path in (tmp_path / "demo" / "output").iterdir() if path.name.startswith(".")
    ]


def test_a_second_identity_is_another_artifact(store):
    first, _ = publishing.publish(store)
    second, made = store.publish(
        "raw_documents", publishing.identity("raw_documents", {"n": 2}), {}, {}, publishing.make
    )
    assert made
    assert first.id != second.id
    assert first.manifest.content == second.manifest.content
