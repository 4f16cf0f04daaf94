"""Nothing is started from a home that somebody else may have filled."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from data_contracts import ConfigError, GroundupError
from flows import known_homes, private_home
from flows.home import Home
from flows.prefect_host import server
from tests.flows.conftest import REPOSITORY, Groundup, free_port
from tests.security.test_foreign_folder import LOGGING

NOT_MADE = "is not one that groundup made for you"


@pytest.fixture(autouse=True)
def own_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A record of known homes for each test, and a process that remembers none."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("GROUNDUP_TRUST_HOME", raising=False)
    monkeypatch.setattr(known_homes, "_admitted", set())
    return tmp_path / "state" / "groundup" / "known_homes"


def forget_this_process() -> None:
    known_homes._admitted.clear()


def made(path: Path) -> Home:
    """A home that groundup made, with something in it."""
    home = Home(path)
    private_home.prepare(home)
    (home.prefect / "prefect.db").write_text("mine")
    forget_this_process()
    return home


def planted_logging(home: Path, ran: Path) -> None:
    (home / "prefect" / "logging.yml").write_text(LOGGING.format(ran=ran))


def planted_profile(home: Path, ran: Path) -> None:
    config = home / "any.yml"
    config.write_text(LOGGING.format(ran=ran))
    (home / "prefect" / "profiles.toml").write_text(
        f'active = "p"\n[profiles.p]\nPREFECT_LOGGING_CONFIG_PATH = "{config}"\n'
    )


def planted_dotenv(home: Path, ran: Path) -> None:
    config = home / "any.yml"
    config.write_text(LOGGING.format(ran=ran))
    (home / "prefect" / ".env").write_text(f"PREFECT_LOGGING_CONFIG_PATH={config}\n")


def planted_prefect_toml(home: Path, ran: Path) -> None:
    config = home / "any.yml"
    config.write_text(LOGGING.format(ran=ran))
    (home / "prefect" / "prefect.toml").write_text(f'[logging]\nconfig_path = "{config}"\n')


def planted_database(home: Path, ran: Path) -> None:
    database = sqlite3.connect(home / "prefect" / "prefect.db")
    database.execute("create table deployment (entrypoint text)")
    database.close()


def planted_record(home: Path, ran: Path) -> None:
    (home / "prefect" / "server.json").write_text(json.dumps({"pid": 1, "command": []}))


def planted_ref(home: Path, ran: Path) -> None:
    ref = home / "store" / "refs" / "demo" / "recipe.json"
    ref.parent.mkdir(parents=True)
    ref.write_text("{}")


def planted_link(home: Path, ran: Path) -> None:
    (home / "store").symlink_to("/tmp")


PLANTED = [
    planted_logging,
    planted_profile,
    planted_dotenv,
    planted_prefect_toml,
    planted_database,
    planted_record,
    planted_ref,
    planted_link,
]
Plant = Callable[[Path, Path], None]


@pytest.mark.parametrize("plant", PLANTED)
def test_a_home_that_holds_something_and_is_not_recorded_is_refused(
    plant: Plant, tmp_path: Path
) -> None:
    home = Home(tmp_path / "home")
    home.prefect.mkdir(parents=True)
    plant(home.path, tmp_path / "ran")
    before = sorted(home.path.rglob("*"))
    with pytest.raises(GroundupError, match=NOT_MADE) as error:
        private_home.prepare(home)
    assert "--trust-home" in error.value.fix
    assert "GROUNDUP_TRUST_HOME=1" in error.value.fix
    assert sorted(home.path.rglob("*")) == before, "it is left as it was"


def test_a_home_that_groundup_made_is_known_from_then_on(own_record: Path, tmp_path: Path) -> None:
    home = made(tmp_path / "home")
    assert private_home.prepare(home) == []
    assert stat.S_IMODE(own_record.stat().st_mode) == 0o600
    assert stat.S_IMODE(own_record.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE((home.path / "home-token").stat().st_mode) == 0o600


@pytest.mark.parametrize("folders", [[], ["prefect"], ["prefect", "store/objects"]])
def test_a_folder_that_is_empty_becomes_a_home(folders: list[str], tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.path.mkdir()
    for folder in folders:
        (home.path / folder).mkdir(parents=True)
    private_home.prepare(home)
    forget_this_process()
    (home.prefect / "prefect.db").write_text("mine")
    private_home.prepare(home)


def test_a_cache_that_a_preview_wrote_into_the_home_is_no_reason_to_refuse_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path / "home")
    cache = home.path / "cache"
    cache.mkdir(parents=True)
    home.path.chmod(0o700)
    (cache / "sha256.sqlite").touch()
    with pytest.raises(GroundupError, match="is not one that groundup made for you"):
        private_home.prepare(home)
    monkeypatch.setenv("GROUNDUP_CACHE", str(cache))
    assert private_home.prepare(home) == []


def test_a_home_of_an_earlier_version_is_accepted_once_and_nothing_is_lost(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.prefect.mkdir(parents=True)
    home.path.chmod(0o755)  # whatever the umask: a folder that others may write is refused for that
    (home.prefect / "prefect.db").write_text("mine")
    with pytest.raises(GroundupError, match="versions before this record did not"):
        private_home.prepare(home)
    assert "is trusted from now on" in private_home.prepare(home, trust=True)[0]
    forget_this_process()
    assert private_home.prepare(home) == []
    assert (home.prefect / "prefect.db").read_text() == "mine"


def test_the_environment_accepts_a_home_and_takes_no_other_word_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path / "home")
    home.prefect.mkdir(parents=True)
    planted_record(home.path, tmp_path)
    for value in ("0", ""):
        monkeypatch.setenv("GROUNDUP_TRUST_HOME", value)
        with pytest.raises(GroundupError, match=NOT_MADE):
            private_home.prepare(home)
    monkeypatch.setenv("GROUNDUP_TRUST_HOME", "yes")
    with pytest.raises(ConfigError, match="neither 0 nor 1"):
        private_home.prepare(home)
    monkeypatch.setenv("GROUNDUP_TRUST_HOME", "1")
    private_home.prepare(home)


def test_a_home_that_was_moved_is_known_and_its_copy_is_not(tmp_path: Path) -> None:
    home = made(tmp_path / "home")
    shutil.copytree(home.path, tmp_path / "copy")
    with pytest.raises(GroundupError, match=f"it is a copy of {home.path}"):
        private_home.prepare(Home(tmp_path / "copy"))
    home.path.rename(tmp_path / "moved")
    moved = Home(tmp_path / "moved")
    assert private_home.prepare(moved) == []
    private_home.prepare(Home(tmp_path / "copy"), trust=True)
    forget_this_process()
    assert private_home.prepare(Home(tmp_path / "copy")) == []
    assert private_home.prepare(moved) == [], "both are known, each by a token of its own"


def test_what_takes_the_place_of_a_home_is_not_known(tmp_path: Path) -> None:
    home = made(tmp_path / "home")
    shutil.copytree(home.path, tmp_path / "other")
    home.path.rename(tmp_path / "old")
    (tmp_path / "other").rename(home.path)
    with pytest.raises(GroundupError, match="was put in its place"):
        private_home.prepare(home)


def test_a_device_that_is_numbered_anew_changes_nothing(own_record: Path, tmp_path: Path) -> None:
    home = made(tmp_path / "home")
    entry = json.loads(own_record.read_text())
    own_record.write_text(json.dumps(entry | {"device": entry["device"] + 1}))
    assert private_home.prepare(home) == []


def test_a_home_to_which_others_could_write_is_not_known(tmp_path: Path) -> None:
    home = made(tmp_path / "home")
    home.path.chmod(0o770)
    with pytest.raises(GroundupError, match="other users of this machine may write to it"):
        private_home.prepare(home)
    private_home.prepare(home, trust=True)
    forget_this_process()
    assert private_home.prepare(home) == [], "it was closed"


@pytest.mark.parametrize("damage", ["{", "[]\n", "null\n", '{"token": 1}\n', "\0" * 100, ""])
def test_a_damaged_record_knows_no_home_and_takes_new_ones(
    damage: str, own_record: Path, tmp_path: Path
) -> None:
    home = made(tmp_path / "home")
    own_record.write_text(damage)
    with pytest.raises(GroundupError, match=NOT_MADE):
        private_home.prepare(home)
    private_home.prepare(home, trust=True)
    forget_this_process()
    assert private_home.prepare(home) == []


@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_a_record_that_others_may_write_is_not_used(
    mode: int, own_record: Path, tmp_path: Path
) -> None:
    home = made(tmp_path / "home")
    own_record.chmod(mode)
    with pytest.raises(GroundupError, match=r"cannot be read \(others may write"):
        private_home.prepare(home)


def test_without_a_folder_for_the_record_a_new_home_works_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    for settings in (
        {"XDG_STATE_HOME": str(tmp_path / "file")},
        {"XDG_STATE_HOME": "", "HOME": str(tmp_path / "file")},
        {"XDG_STATE_HOME": "relative", "HOME": "/proc/nowhere"},
    ):
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        home = Home(tmp_path / f"home-{len(list(tmp_path.iterdir()))}")
        (line,) = private_home.prepare(home)
        assert "cannot be recorded as yours" in line
        assert private_home.prepare(home) == [], "said once by a command"
        (home.prefect / "prefect.db").write_text("mine")
        assert private_home.prepare(home) == []
        forget_this_process()
        with pytest.raises(GroundupError, match=NOT_MADE):
            private_home.prepare(home)
        private_home.prepare(home, trust=True)


def test_many_that_make_a_home_at_once_are_admitted(tmp_path: Path) -> None:
    script = (
        "from flows import private_home; from flows.home import current_home; "
        "private_home.prepare(current_home()); "
        "(current_home().prefect / 'prefect.db').write_text('mine')"
    )
    environment = os.environ | {"GROUNDUP_HOME": str(tmp_path / "home")}
    crowd = [
        subprocess.Popen([sys.executable, "-c", script], env=environment, cwd=REPOSITORY)
        for _ in range(4)
    ]
    assert [process.wait(120) for process in crowd] == [0, 0, 0, 0]


@pytest.mark.slow
@pytest.mark.parametrize("plant", [planted_logging, planted_profile, planted_dotenv, planted_ref])
def test_no_command_starts_anything_from_a_planted_home(plant: Plant, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    folder = tmp_path / "cloned"
    home = folder / ".groundup"
    (home / "prefect").mkdir(parents=True)
    plant(home, ran)
    (folder / "page.txt").write_text("A page of text.")
    groundup = Groundup(home, free_port(), folder, makes_database=True)
    del groundup.environment["GROUNDUP_HOME"]
    sources = "crawl.sources=[{kind: files, paths: ['*.txt']}]"
    for command in (
        ["up"],
        ["run", "--recipe", "own", "--set", sources],
        ["stage", "crawl", "--name", "x", "--set", sources.removeprefix("crawl.")],
    ):
        done = groundup.run(*command, check=False)
        assert done.returncode == 2
        assert NOT_MADE in done.stderr
        assert "Traceback" not in done.stderr
    for command in (["ls"], ["down"]):
        groundup.run(*command)
    assert not ran.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "plant", [planted_logging, planted_profile, planted_dotenv, planted_prefect_toml]
)
def test_files_that_come_into_a_known_home_later_give_prefect_no_settings(
    plant: Plant, tmp_path: Path
) -> None:
    ran = tmp_path / "ran"
    groundup = Groundup(tmp_path / "home", free_port(), tmp_path)
    home = made(tmp_path / "home")
    (home.prefect / "prefect.db").unlink()
    plant(home.path, ran)
    try:
        done = groundup.run("up")
        assert "is not read: settings of Prefect come from the environment" in done.stderr
    finally:
        groundup.run("down")
    assert not ran.exists()


@pytest.mark.slow
def test_the_option_starts_a_home_of_an_earlier_version_and_keeps_what_is_in_it(
    tmp_path: Path, own_record: Path
) -> None:
    groundup = Groundup(tmp_path / "home", free_port(), tmp_path)
    try:
        groundup.run("up")
        groundup.run("down")
        own_record.unlink()
        refused = groundup.run("up", check=False)
        assert NOT_MADE in refused.stderr
        groundup.run("up", "--trust-home")
        assert groundup.deployment("build-llm")
        groundup.run("down")
        groundup.run("up")
    finally:
        groundup.run("down", check=False)


def test_a_folder_of_other_files_is_neither_taken_as_a_home_nor_closed(tmp_path: Path) -> None:
    website = tmp_path / "www"
    website.mkdir(mode=0o755)
    page = website / "index.html"
    page.write_text("hello")
    page.chmod(0o644)
    link = tmp_path / "clone"
    link.symlink_to(website)
    with pytest.raises(GroundupError, match="is not one that groundup made for you"):
        private_home.prepare(Home(link))
    assert private_home.prepare(Home(link), starts=False) == []
    assert server.down(Home(link)) == "nothing was up"
    assert stat.S_IMODE(page.stat().st_mode) == 0o644
    assert [path.name for path in website.iterdir()] == ["index.html"]


def test_a_store_that_is_a_folder_of_other_files_is_not_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "www" / "index.html"
    page.parent.mkdir()
    page.touch()
    page.chmod(0o644)  # whatever the umask
    monkeypatch.setenv("GROUNDUP_STORE", str(page.parent))
    private_home.prepare(Home(tmp_path / "home"))
    assert stat.S_IMODE(page.stat().st_mode) == 0o644


@pytest.mark.parametrize("home", ["", "."])
def test_a_home_directory_without_an_absolute_path_gives_no_record(
    home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", home)
    with pytest.raises(OSError, match="not an absolute path"):
        known_homes.record_file()
