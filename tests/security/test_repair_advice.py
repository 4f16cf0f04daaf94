"""The advice of an error fits its cause, repairs it when followed, and deletes nothing."""

from __future__ import annotations

import ast
import errno
import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import data_contracts
from data_contracts import ArtifactError, GroundupError, Store
from data_contracts.store import entries, removal
from data_contracts.store.index import StoreIndex
from data_contracts.store.verification import verify
from flows import lineage
from flows.cli import artifact_commands
from tests.security import stores
from tests.security.another_user import as_nobody, give_to_nobody, open_folder
from tests.security.stores import CLEAN, RAW, Entries, manifest_key, ref_key
from tests.security.test_moved_aside import everything, folder_with_files_of_the_same_names


@pytest.fixture
def root() -> Iterator[Path]:
    """A store of a user for whom permissions count, in a folder that this user can enter."""
    with open_folder() as folder:
        store = Store(folder / "store")
        stores.fill(store)
        give_to_nobody(store.root)
        yield store.root


def advice(root: Path, reference: str) -> str | None:
    """The advice for a person who has the artifact verified; None if all is well."""
    store = Store(root)
    try:
        verify(store.find(reference), StoreIndex.read(store))
    except GroundupError as error:
        return error.fix
    return None


CLOSED = {
    "a data file": (f"objects/{RAW}/*/documents/part-00000.parquet", 0o000),
    "the manifest": (f"objects/{RAW}/*/manifest.json", 0o000),
    "the folder of a table": (f"objects/{RAW}/*/documents", 0o000),
    "the folder of the artifact": (f"objects/{RAW}/*", 0o600),
    "the folder of all artifacts": ("objects", 0o000),
    "the ref": (ref_key(RAW), 0o000),
    "the folder of the refs": ("refs/demo", 0o000),
}


@pytest.mark.parametrize("what", CLOSED)
def test_who_lacks_a_permission_is_told_the_chmod_that_gives_it(root: Path, what: str) -> None:
    pattern, mode = CLOSED[what]
    (path,) = root.glob(pattern)
    path.chmod(mode)
    fix = as_nobody(lambda: advice(root, f"demo/{RAW}"))
    assert fix == f"chmod u+r{'X' if path.is_dir() else ''} {path}"

    def obey() -> Any:
        subprocess.run(shlex.split(fix), check=True)
        return advice(root, f"demo/{RAW}")

    assert as_nobody(obey) is None


@pytest.mark.parametrize("mode", [0o000, 0o200])
@pytest.mark.parametrize("owner", ["nobody", "root"])
def test_a_ref_that_may_not_be_read_is_not_taken_for_damaged(
    root: Path, mode: int, owner: str
) -> None:
    entry = root / ref_key(RAW)
    entry.chmod(mode)
    if owner == "root":
        os.chown(entry, os.geteuid(), os.getegid())

    def remove() -> list[str]:
        store, fixes = Store(root), []
        for use in (
            lambda: removal.repair_ref(store, f"demo/{RAW}"),
            lambda: store.find(f"demo/{RAW}"),
        ):
            with pytest.raises(
                ArtifactError, match="its entry 1 cannot be read: Permission denied"
            ) as error:
                use()
            fixes.append(error.value.fix)
        return fixes

    ours, of_verify = as_nobody(remove)
    assert ours == of_verify
    theirs = owner == "root" and os.geteuid() == 0
    assert ours.startswith("run as " if theirs else "chmod u+r")
    assert [path.name for path in (root / "refs" / "demo" / RAW).iterdir()] == ["00000001.json"]


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOENT, errno.EMFILE])
def test_a_ref_that_the_system_does_not_give_is_not_taken_for_damaged(
    store: Store, number: int, monkeypatch: Any
) -> None:
    stores.fill(store)

    def refuse(*_: Any) -> bytes:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(entries, "read_bounded", refuse)
    with pytest.raises(ArtifactError, match="its entry 1 cannot be read") as error:
        removal.repair_ref(store, f"demo/{RAW}")
    assert "groundup rm" not in error.value.fix
    assert [path.name for path in (store.root / "refs" / "demo" / RAW).iterdir()] == [
        "00000001.json"
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to somebody else")
def test_who_does_not_own_the_file_is_told_who_does(root: Path) -> None:
    (path,) = root.glob(f"objects/{RAW}/*/documents/part-00000.parquet")
    os.chown(path, 0, 0)
    path.chmod(0o600)
    fix = as_nobody(lambda: advice(root, f"demo/{RAW}"))
    assert fix.startswith(f"run as root, who owns {path}")


def test_a_store_that_cannot_be_read_is_neither_empty_nor_missing_its_artifacts(root: Path) -> None:
    (root / "objects" / RAW).chmod(0o000)

    def look() -> list[str]:
        store, fixes = Store(root), []
        for ask in (
            store.ids,
            lambda: store.has(*store.resolve(f"demo/{RAW}")),
            lambda: store.resolve("abcdef"),
        ):
            try:
                fixes.append(repr(ask()))
            except ArtifactError as error:
                fixes.append(error.fix)
        return fixes

    assert as_nobody(look) == [f"chmod u+rX {root / 'objects' / RAW}"] * 3


def test_a_read_only_store_is_read_and_a_publish_into_it_says_what_is_not_writable(
    root: Path,
) -> None:
    for folder in (root, *(path for path in root.rglob("*") if path.is_dir())):
        folder.chmod(0o555)

    def use() -> list[str]:
        store = Store(root)
        assert verify(store.find(f"demo/{CLEAN}"), StoreIndex.read(store)).seal == "sealed"
        fixes = []
        for write in (
            lambda: stores.publish_raw(store, "b"),
            lambda: store.remember_recipe("demo", "tiny", []),
        ):
            with pytest.raises(ArtifactError, match="permission is denied") as error:
                write()
            fixes.append(error.value.fix)
        return fixes

    for fix in as_nobody(use):
        assert fix.startswith(f"chmod u+rwX {root}")
        assert "rm -" not in fix
    assert sorted(path.name for path in (root / "objects" / RAW).iterdir()) == [
        Store(root).resolve(f"demo/{RAW}")[1]
    ]


def damage_stray(store: Store) -> None:
    (store.find(f"demo/{RAW}").path / "a stray").write_text("mine")


def damage_hidden(store: Store) -> None:
    (store.find(f"demo/{RAW}").path / "documents" / ".hidden").write_text("mine")


def damage_escapes(store: Store) -> None:
    (store.find(f"demo/{RAW}").path / "\x1b]0;title\x07'\n").write_text("mine")


def damage_flip(store: Store) -> None:
    path = store.find(f"demo/{RAW}").path / "documents/part-00000.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def damage_gone(store: Store) -> None:
    (store.find(f"demo/{RAW}").path / "documents/part-00000.parquet").unlink()


def damage_link(store: Store) -> None:
    path = store.find(f"demo/{RAW}").path / "documents/part-00000.parquet"
    shutil.move(path, store.root / "elsewhere")
    path.symlink_to(store.root / "elsewhere")


def damage_manifest(store: Store) -> None:
    Entries(store).write(manifest_key(store.find(f"demo/{RAW}")), b"{")


def damage_no_manifest(store: Store) -> None:
    (store.find(f"demo/{RAW}").path / "manifest.json").unlink()


def damage_moved(store: Store) -> None:
    raw, other = store.find(f"demo/{RAW}"), stores.publish_raw(store, "b")
    raw.path.rename(store.root / "kept")
    other.path.rename(raw.path)


def damage_ref(store: Store) -> None:
    Entries(store).write(ref_key(RAW), b"{")


DAMAGES: list[Callable[[Store], None]] = [
    damage_stray,
    damage_hidden,
    damage_escapes,
    damage_flip,
    damage_gone,
    damage_link,
    damage_manifest,
    damage_no_manifest,
    damage_moved,
    damage_ref,
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_no_advice_deletes_anything_and_following_it_loses_nothing(
    store: Store, damage: Callable[[Store], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    stores.fill(store)
    damage(store)
    own = folder_with_files_of_the_same_names(store)
    before = sorted(everything(store.root.parent).values())
    fix = advice(store.root, f"demo/{RAW}")
    assert fix
    assert "rm -" not in fix
    assert fix.isprintable()
    for command in (part for part in fix.split("; ") if "mv " in part):
        subprocess.run(["bash", "-c", command[command.index("mv ") :]], cwd=own, check=True)
    if "groundup rm " in fix:
        target = fix.partition("groundup rm ")[2].split()[0]
        monkeypatch.setenv("GROUNDUP_STORE", str(store.root))
        artifact_commands.rm(target, yes=True)
    after = sorted(everything(store.root.parent).values())
    assert [data for data in before if data not in after] == [], (
        "what was there is still there, somewhere"
    )


def test_what_does_not_belong_is_moved_out_and_the_artifact_is_sound(store: Store) -> None:
    stores.fill(store)
    damage_escapes(store)
    fix = advice(store.root, f"demo/{RAW}")
    assert fix
    assert fix.startswith("move it out of the artifact: mv -n $'")
    subprocess.run(["bash", "-c", fix.partition(": ")[2]], cwd=store.root, check=True)
    assert advice(store.root, f"demo/{RAW}") is None


def test_to_make_it_again_says_the_command_and_what_it_costs(store: Store) -> None:
    stores.fill(store)
    clean = store.find(f"demo/{CLEAN}")
    Entries(store).change_json(
        manifest_key(clean),
        lambda manifest: manifest.update(
            started="2026-01-31T10:00:00+00:00", finished="2026-01-31T12:30:00+00:00"
        ),
    )
    fix = advice(store.root, f"{CLEAN}/{clean.id}")
    assert fix == (
        "restore it from a copy of the store, or make it again: "
        f"groundup rm {clean}   (keeps it aside)   "
        "then groundup stage test --name NAME, with a name that has it; making it took 2.5 h"
    )


PLANTED = {
    "artifact_type": ["../../victim", "/etc", "a b", "Raw", "", "raw_documents\n", ".", "x" * 65],
    "id": ["../../victim", "0" * 23, "0" * 23 + "G", "", "0" * 24 + "\n", "*"],
    "stage": ["crawl; touch owned", "$(touch owned)", "\x1b]0;x\x07", "-rf", "`id`"],
    "at": ["\x1b[2J", "x" * 41],
    "manifest_sha256": ["", "0" * 63, "../x"],
}


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, values in PLANTED.items() for value in values]
)
def test_a_planted_ref_leads_nowhere(store: Store, field: str, value: str) -> None:
    stores.fill(store)
    victim = store.root.parent / "victim"
    victim.mkdir()
    (victim / "manifest.json").write_text("{}")
    Entries(store).change_json(ref_key(RAW), lambda ref: ref.update({field: value}))
    fix = advice(store.root, f"demo/{RAW}")
    then = (
        f"it is the only one, so run demo is without {RAW} until a stage with --name demo makes it"
    )
    assert fix == f"groundup rm demo/{RAW}   (keeps the entry aside: {then})"
    for use in (
        lambda: store.refs.outputs("demo"),
        lambda: store.refs.get("demo", RAW),
        lambda: store.resolve(f"demo/{RAW}"),
    ):
        with pytest.raises(ArtifactError, match="its entry 1 cannot be read") as error:
            use()
        assert "\x1b" not in str(error.value)
        assert str(victim) not in str(error.value)
    assert (victim / "manifest.json").exists()


@pytest.mark.parametrize(
    "field",
    ["artifact_type", "id", "stage", "groundup", "contract", "as_of", "started", "finished"],
)
@pytest.mark.parametrize("value", ["../../victim", "x; touch owned", "\x1b]0;x\x07", "1.0.0\n"])
def test_a_planted_manifest_leads_nowhere(store: Store, field: str, value: str) -> None:
    stores.fill(store)
    clean = store.find(f"demo/{CLEAN}")
    Entries(store).change_json(
        manifest_key(clean), lambda manifest: manifest.update({field: value})
    )
    with pytest.raises(ArtifactError) as error:
        store.find(f"{CLEAN}/{clean.id}", verify=True)
    assert "\x1b" not in str(error.value)
    assert "touch owned" not in error.value.fix


@pytest.mark.parametrize("part", ["artifact_type", "id"])
def test_an_input_that_leads_out_of_the_store_is_refused(store: Store, part: str) -> None:
    stores.fill(store)
    clean = store.find(f"demo/{CLEAN}")
    Entries(store).change_json(
        manifest_key(clean),
        lambda manifest: manifest["inputs"][RAW].update({part: "../../../victim"}),
    )
    with pytest.raises(ArtifactError, match=f"inputs.{RAW}.{part}: "):
        lineage.upstream(store, store.open(CLEAN, clean.id, verify=False))


@pytest.mark.parametrize(
    "key",
    [
        ("../x", "0" * 24),
        (RAW, "../../x"),
        (RAW, ""),
        ("", "0" * 24),
        ("a/b", "0" * 24),
        (RAW, "0" * 25),
    ],
)
@pytest.mark.parametrize("use", [Store.path, Store.has, Store.open, Store.set_aside])
def test_no_type_and_id_lead_out_of_a_store(
    tmp_path: Path, key: tuple[str, str], use: Callable[..., Any]
) -> None:
    for store in (Store(tmp_path / "store"), stores.in_bucket(tmp_path)):
        with pytest.raises(ArtifactError, match="is no artifact type and id"):
            getattr(store, use.__name__)(*key)


def test_no_message_of_the_sources_says_to_delete() -> None:
    sources = [
        *Path(data_contracts.__file__).parent.rglob("*.py"),
        *Path(lineage.__file__).parent.glob("*.py"),
    ]
    texts = []
    for path in sources:
        nodes = ast.walk(ast.parse(path.read_text("utf-8")))
        constants = [node.value for node in nodes if isinstance(node, ast.Constant)]
        texts += [(path.name, value) for value in constants if isinstance(value, str)]
    assert len(texts) > 1000
    deleting = [
        (name, text) for name, text in texts if "rm -" in text and "groundup rm -" not in text
    ]
    assert deleting == []
