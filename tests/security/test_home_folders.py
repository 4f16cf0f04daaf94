"""The folders in a home are the home's own: no links, and nobody else writes to them."""

from __future__ import annotations

import os
import shutil
import stat
import time
from pathlib import Path

import pytest

from data_contracts import GroundupError
from flows import private_home
from flows.home import Home
from tests.flows.conftest import Groundup, free_port
from tests.security.test_known_homes import forget_this_process, made, own_record

__all__ = ["own_record"]  # a fixture that every test here uses


@pytest.mark.parametrize("folder", ["prefect", "store", "store/refs", "store/objects"])
def test_a_folder_in_a_home_to_which_others_could_write_is_as_such_a_home(
    folder: str, tmp_path: Path
) -> None:
    home = made(tmp_path / "home")
    (home.path / folder).mkdir(parents=True, exist_ok=True)
    (home.path / folder).chmod(0o777)
    with pytest.raises(GroundupError, match=f"users of this machine may write to .*/{folder}"):
        private_home.prepare(home)
    private_home.prepare(home, trust=True)
    assert stat.S_IMODE((home.path / folder).stat().st_mode) == 0o700
    forget_this_process()
    assert private_home.prepare(home) == [], "it was closed"


@pytest.mark.parametrize("name", ["prefect", "store"])
@pytest.mark.parametrize("is_there", [True, False])
def test_a_folder_of_a_home_that_is_a_link_is_one_error_and_nothing_is_made_behind_it(
    name: str, is_there: bool, tmp_path: Path
) -> None:
    home = made(tmp_path / "home")
    elsewhere = tmp_path / "elsewhere"
    if is_there:
        elsewhere.mkdir()
    if name == "prefect":
        shutil.rmtree(home.prefect)
    (home.path / name).symlink_to(elsewhere)
    with pytest.raises(GroundupError, match=f"is a link to {elsewhere}, out of the home") as error:
        private_home.prepare(home)
    assert error.value.fix.startswith(f"move it away: mv -n {home.path / name} ")
    assert not elsewhere.exists() or not list(elsewhere.iterdir())


def test_a_command_that_meets_a_link_in_its_home_ends_with_one_error(tmp_path: Path) -> None:
    home = made(tmp_path / "home")
    groundup = Groundup(home.path, free_port(), tmp_path, makes_database=True)
    shutil.rmtree(home.prefect)
    home.prefect.symlink_to(tmp_path)
    for command in (["up"], ["down"]):
        done = groundup.run(*command, check=False)
        assert done.returncode == 2
        assert "is a link to" in done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "prefect.db").exists()


OTHERS_MAY_WRITE = [
    "prefect/prefect.db",
    "prefect/prefect.db-wal",
    "store/refs/demo",
    "store/refs/demo/chat",
    "store/refs/demo/chat/00000001.json",
    "store/names/demo/chat/00000001.json",
]


def with_refs(path: Path) -> Home:
    at = made(path)
    for name in OTHERS_MAY_WRITE:
        if "." in name:
            (at.path / name).parent.mkdir(parents=True, exist_ok=True)
            (at.path / name).write_text("mine")
    for inside in at.path.rglob("*"):
        inside.chmod(0o700 if inside.is_dir() else 0o600)
    forget_this_process()
    return at


@pytest.mark.parametrize("name", OTHERS_MAY_WRITE)
def test_a_home_with_a_database_or_a_ref_to_which_others_could_write_is_not_known(
    name: str, tmp_path: Path
) -> None:
    at = with_refs(tmp_path / "home")
    assert private_home.prepare(at) == []
    forget_this_process()
    (at.path / name).chmod(0o720)
    with pytest.raises(GroundupError, match=f"users of this machine may write to .*/{name}"):
        private_home.prepare(at)
    private_home.prepare(at, trust=True)
    forget_this_process()
    assert private_home.prepare(at) == [], "it was closed"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("name", OTHERS_MAY_WRITE)
def test_a_home_with_a_database_or_a_ref_of_somebody_else_is_not_known(
    name: str, tmp_path: Path
) -> None:
    at = with_refs(tmp_path / "home")
    os.chown(at.path / name, 65534, -1)
    with pytest.raises(GroundupError, match=f"users of this machine may write to .*/{name}"):
        private_home.prepare(at)


def test_a_home_with_many_refs_is_known_as_soon_as_their_states_are_read(tmp_path: Path) -> None:
    """Compared with the same reading by the shortest program: no machine is named."""
    at = with_refs(tmp_path / "home")
    for number in range(2_000):
        folder = at.path / "store" / "refs" / f"run{number}" / "chat"
        folder.mkdir(parents=True)
        (folder / "00000001.json").touch()
    for inside in (at.path / "store" / "refs").rglob("*"):
        inside.chmod(0o700 if inside.is_dir() else 0o600)
    begun = time.process_time()
    states = [path.lstat() for path in (at.path / "store" / "refs").rglob("*")]
    needed = time.process_time() - begun
    assert len(states) > 6_000
    begun = time.process_time()
    assert private_home.prepare(at) == []
    assert time.process_time() - begun < 5 * needed + 0.5
