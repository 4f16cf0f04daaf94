"""The folders in a home are the home's own: no links, and nobody else writes to them."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path

import pytest

from data_contracts import GroundupError
from flows import private_home
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
