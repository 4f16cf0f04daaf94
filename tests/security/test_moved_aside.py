"""A command that moves a file out of the way never overwrites a file of the same name."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from data_contracts import ArtifactError, Store
from data_contracts.store.index import StoreIndex
from data_contracts.store.verification import verify
from tests.security import stores
from tests.security.stores import RAW


def everything(root: Path) -> dict[str, bytes]:
    """All that lies in a store, wherever it lies."""
    return {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def folder_with_files_of_the_same_names(store: Store) -> Path:
    """A person's folder, beside the store, with a file of the name of each file in the store."""
    own = store.root.parent / "own"
    own.mkdir()
    for path in list(store.root.rglob("*")):
        (own / path.name).write_text(f"my own {path.name!r}")
    return own


def follow(fix: str, folder: Path) -> None:
    """Run the first command that an error advises, in `folder`."""
    command = fix[fix.index("mv ") :].partition("; ")[0].partition("   (")[0]
    subprocess.run(["bash", "-c", command], cwd=folder, check=False)


@pytest.mark.parametrize("in_the_way", ["drafts", "locks", f"objects/{RAW}"])
def test_what_is_moved_out_of_the_way_overwrites_nothing(store: Store, in_the_way: str) -> None:
    stores.fill(store)
    path = store.root / in_the_way
    path.rename(store.root / "kept")
    path.write_text("in the way")
    own = folder_with_files_of_the_same_names(store)
    before = sorted(everything(store.root.parent).values())
    with pytest.raises(ArtifactError, match="a file is where a folder should be") as error:
        stores.publish_raw(store, "b")
    for _ in range(2):  # the second time somebody has put the same thing there again
        path.write_text("in the way")
        follow(error.value.fix, own)
    assert [data for data in before if data not in everything(store.root.parent).values()] == []
    assert (own / path.name).read_text() == f"my own {path.name!r}"


def test_a_link_is_moved_away_and_overwrites_nothing(store: Store) -> None:
    stores.fill(store)
    link = store.root / "drafts"
    link.rename(store.root / "kept")
    link.symlink_to(store.root / "kept")
    own = folder_with_files_of_the_same_names(store)
    with pytest.raises(ArtifactError, match="is a link") as error:
        stores.publish_raw(store, "b")
    follow(error.value.fix, own)
    assert not link.is_symlink()
    assert (own / "drafts").read_text() == "my own 'drafts'"
    assert stores.publish_raw(store, "b").artifact_type == RAW


def test_two_strays_of_one_name_are_both_kept(store: Store, tmp_path: Path) -> None:
    stores.fill(store)
    folder = store.find(f"demo/{RAW}").path
    for parent in (folder, folder / "documents"):
        (parent / ("n" * 250)).write_text(str(parent))
    with pytest.raises(ArtifactError, match="is not in the manifest") as error:
        verify(store.find(f"demo/{RAW}"), StoreIndex.read(store))
    own = tmp_path / "own"
    own.mkdir()
    for command in error.value.fix.split("; "):
        follow(command, own)
    verify(store.find(f"demo/{RAW}"), StoreIndex.read(store))
    kept = sorted(path.read_text() for path in own.iterdir())
    assert kept == [str(folder), str(folder / "documents")]
