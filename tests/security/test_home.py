"""Other users of the machine see nothing of a home.

The tests use another user: run by root alone, a test of permissions could not fail.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_contracts import ConfigError, GroundupError
from flows import known_homes, private_home
from flows.home import Home
from tests.flows.conftest import Groundup, free_port

NOBODY = 65534
ID = "0123456789abcdef01234567"  # of an artifact
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")


def as_other(
    *command: str, user: int = NOBODY, group: int = NOBODY
) -> subprocess.CompletedProcess[str]:
    identity = ["setpriv", "--reuid", str(user), "--regid", str(group), "--clear-groups"]
    return subprocess.run([*identity, *command], capture_output=True, text=True, check=False)


def readable(folder: Path, user: int = NOBODY, group: int = NOBODY) -> list[str]:
    """Return the files in `folder` that another user can read, tried one by one by path."""
    files = [str(path) for path in folder.rglob("*") if path.is_file()]
    assert files, "a test that finds no file could not fail"
    return [path for path in files if as_other("cat", path, user=user, group=group).returncode == 0]


def open_to_others(folder: Path) -> list[Path]:
    inside = [folder, *folder.rglob("*")]
    return [path for path in inside if not path.is_symlink() and path.stat().st_mode & 0o077]


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that everybody can enter: pytest's own are private already."""
    folder = Path(tempfile.mkdtemp(prefix="groundup-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def open_home(public: Path) -> Home:
    """A home as older releases left it: 0755 and 0644."""
    home = Home(public / "home")
    for name in (
        "prefect/prefect.db",
        "prefect/server.log",
        "store/objects/raw_documents/abc/manifest.json",
    ):
        path = home.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    for path in [home.path, *home.path.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    known_homes.admit(home, trust=True)
    return home


def test_a_home_that_others_could_read_is_closed_with_all_that_is_in_it_and_that_is_said(
    open_home: Home,
) -> None:
    assert len(readable(open_home.path)) == 3
    lines = private_home.prepare(open_home)
    assert readable(open_home.path) == []
    assert open_to_others(open_home.path) == []
    assert lines == [
        f"{open_home.path} was open to other users of this machine: "
        "9 files and folders are now yours alone"
    ]
    assert private_home.prepare(open_home) == [], "what is closed is not said again"


def test_closing_a_home_follows_no_link_out_of_it(open_home: Home, public: Path) -> None:
    (public / "theirs.txt").write_text("public")
    (public / "theirs.txt").chmod(0o644)
    (open_home.path / "link").symlink_to(public / "theirs.txt")
    private_home.prepare(open_home)
    assert stat.S_IMODE((public / "theirs.txt").stat().st_mode) == 0o644


def test_a_home_of_somebody_else_is_refused(open_home: Home) -> None:
    os.chown(open_home.path, NOBODY, NOBODY)
    with pytest.raises(
        GroundupError, match="belongs to nobody, who could plant in it what groundup would run"
    ):
        private_home.prepare(open_home)


def test_a_store_elsewhere_is_closed_too_and_how_to_share_it_is_said(
    public: Path, open_home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = public / "store"
    store.mkdir()
    store.chmod(0o755)  # whatever the umask is that an earlier test has set
    artifact = store / "objects" / "raw_documents" / ID
    artifact.mkdir(parents=True)
    (artifact / "manifest.json").write_text("mine")
    monkeypatch.setenv("GROUNDUP_STORE", str(store))
    _, line = private_home.prepare(open_home)
    assert line.startswith(f"{store} was open")
    assert "set GROUNDUP_STORE_GROUP" in line
    assert readable(store) == []


def test_the_cache_of_a_store_behind_a_url_is_closed_too(
    public: Path, open_home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = public / "cache"
    cache.mkdir()
    cache.chmod(0o755)
    artifact = cache / "0123456789abcdef" / "objects" / "raw_documents" / ID
    artifact.mkdir(parents=True)
    (artifact / "manifest.json").write_text("mine")
    monkeypatch.setenv("GROUNDUP_STORE", "s3://bucket/prefix")
    monkeypatch.setenv("GROUNDUP_CACHE", str(cache))
    private_home.prepare(open_home)
    assert readable(cache) == []


SHARED_FOLDERS = {
    "GROUNDUP_STORE": ("{folder}", "objects"),
    "GROUNDUP_CACHE": ("s3://bucket/prefix", "0123456789abcdef"),
}


@pytest.mark.parametrize("variable", SHARED_FOLDERS)
def test_a_folder_of_other_files_stays_open_and_what_groundup_makes_there_is_closed(
    variable: str, public: Path, open_home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A web site does not vanish because somebody named its folder."""
    site = public / "site"
    store, made_by_us = SHARED_FOLDERS[variable]
    ours = made_by_us if made_by_us == "objects" else f"{made_by_us}/objects"
    artifact = f"{ours}/raw_documents/{ID}/manifest.json"
    for name in (artifact, "index.html", "images/logo.svg"):
        path = site / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("text")
    for path in [site, *site.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    monkeypatch.setenv("GROUNDUP_STORE", store.format(folder=site))
    monkeypatch.setenv("GROUNDUP_CACHE", str(site))
    _, line = private_home.prepare(open_home)
    assert line.startswith(f"{site / made_by_us} was open")
    others = [str(site / "images" / "logo.svg"), str(site / "index.html")]
    assert sorted(readable(site)) == others
    assert open_to_others(site / made_by_us) == []


def test_a_store_in_a_folder_of_other_files_is_given_to_no_group(
    public: Path, open_home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    (public / "index.html").write_text("text")
    monkeypatch.setenv("GROUNDUP_STORE", str(public))
    monkeypatch.setenv("GROUNDUP_STORE_GROUP", "nogroup")
    with pytest.raises(ConfigError, match="holds other files than those of a store"):
        private_home.prepare(open_home)
    assert stat.S_IMODE(public.stat().st_mode) == 0o755


WORK = """
from pathlib import Path
from flows.private_home import keep_private, prepare
from flows.home import current_home
keep_private()
prepare(current_home())
folder = Path(current_home().store) / "objects" / "tokenizer"
folder.mkdir(parents=True)
(folder / "made later.json").write_text("ours")
"""


def test_a_group_that_the_setting_names_shares_the_store_and_nobody_else(public: Path) -> None:
    store, home = public / "store", public / "home"
    settings = {
        "GROUNDUP_HOME": str(home),
        "GROUNDUP_STORE": str(store),
        "GROUNDUP_STORE_GROUP": "nogroup",
    }
    subprocess.run(
        [sys.executable, "-c", WORK],
        env=os.environ | settings,
        cwd=Path(__file__).parents[2],
        check=True,
    )
    made = store / "objects" / "tokenizer"
    assert readable(store, user=4711) == [str(made / "made later.json")], "a member of the group"
    assert as_other("touch", str(made / "theirs"), user=4711).returncode == 0, "who may add to it"
    assert readable(store, user=4711, group=4711) == []
    assert stat.S_IMODE(home.stat().st_mode) == 0o700, "the home is not shared"


@pytest.mark.parametrize(
    ("store", "group", "why"),
    [
        ("", "nogroup", "the store is in the home"),
        ("s3://bucket/x", "nogroup", "behind a URL"),
        ("{public}/store", "no-such-group", "there is no such group"),
    ],
)
def test_a_group_that_cannot_share_the_store_is_refused(
    public, open_home, monkeypatch, store, group, why
) -> None:
    monkeypatch.setenv("GROUNDUP_STORE", store.format(public=public))
    monkeypatch.setenv("GROUNDUP_STORE_GROUP", group)
    with pytest.raises(ConfigError, match=why):
        private_home.prepare(open_home)


@pytest.mark.slow
@pytest.mark.parametrize("elsewhere", [False, True])
def test_all_that_a_command_makes_is_closed_to_others_from_the_start(
    public: Path, elsewhere: bool
) -> None:
    (public / "page.txt").write_text("A page of text.")
    groundup = Groundup(public / "home", 0)
    if elsewhere:
        groundup.environment["GROUNDUP_STORE"] = str(public / "store")
    before = os.umask(0)
    try:
        groundup.run(
            "stage",
            "crawl",
            "--name",
            "pages",
            "--set",
            f"sources=[{{kind: files, paths: ['{public}/*.txt']}}]",
        )
    finally:
        os.umask(before)
    made = public / "store" if elsewhere else public / "home"
    assert open_to_others(made) == []
    assert readable(made) == []


@pytest.mark.slow
def test_up_closes_an_open_home_says_so_and_its_server_keeps_it_closed(open_home: Home) -> None:
    (open_home.path / "prefect" / "prefect.db").unlink()
    groundup = Groundup(open_home.path, free_port(), makes_database=True)
    try:
        done = groundup.run("up")
        assert "was open to other users of this machine" in done.stderr
        assert (open_home.path / "prefect" / "prefect.db").is_file()
        assert open_to_others(open_home.path) == []
        assert readable(open_home.path) == []
    finally:
        groundup.run("down")
