"""The API secret: made once, for its owner's eyes, and refused where others may know it."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import pytest

from data_contracts import GroundupError
from flows import private_home
from flows.home import Home
from flows.prefect_host import api_secret, processes, server


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def test_it_is_made_once_and_only_its_owner_may_read_it(home: Home) -> None:
    before = os.umask(0)
    try:
        secret = api_secret.read_or_make(home)
    finally:
        os.umask(before)
    assert stat.S_IMODE(api_secret.path(home).stat().st_mode) == 0o600
    assert len(secret) > 40
    assert api_secret.read_or_make(home) == secret
    assert [file.name for file in home.prefect.iterdir()] == ["api-secret"]


def test_many_that_start_at_once_agree(home: Home) -> None:
    with ThreadPoolExecutor(8) as crowd:
        assert len(set(crowd.map(lambda _: api_secret.read_or_make(home), range(32)))) == 1


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620, 0o602])
def test_one_that_others_may_know_or_choose_is_not_used(home: Home, mode: int) -> None:
    api_secret.read_or_make(home)
    api_secret.path(home).chmod(mode)
    with pytest.raises(
        GroundupError,
        match=r"is open to others .*\n.*mv .*/api-secret .*/api-secret.unusable; groundup up",
    ):
        api_secret.read_or_make(home)


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a file away needs root")
def test_one_of_another_user_is_not_used(home: Home) -> None:
    api_secret.read_or_make(home)
    os.chown(api_secret.path(home), 65534, 65534)
    with pytest.raises(GroundupError, match="belongs to user 65534"):
        api_secret.read_or_make(home)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "short:x",
        "no colon in this text at all",
        ":" + "x" * 40,
        "user:" + "x" * 20 + "\n" + "y",
        "user:" + "é" * 20,
    ],
)
def test_a_file_that_holds_none_is_said_and_never_used(home: Home, text: str) -> None:
    api_secret.read_or_make(home)
    api_secret.path(home).write_text(text, "utf-8")
    with pytest.raises(GroundupError, match="holds no secret"):
        api_secret.read_or_make(home)


def test_a_pipe_in_its_place_is_one_error_at_once(home: Home) -> None:
    private_home.prepare(home)
    os.mkfifo(api_secret.path(home), 0o600)
    with pytest.raises(GroundupError, match="holds no secret"):
        api_secret.read_or_make(home)


@pytest.mark.parametrize("dangling", [True, False])
def test_a_link_in_its_place_is_neither_followed_nor_overwritten(
    home: Home, tmp_path: Path, dangling: bool
) -> None:
    victim = tmp_path / "victim"
    if not dangling:
        victim.write_text("user:" + "x" * 40)
        victim.chmod(0o600)
    home.prefect.mkdir(parents=True)
    api_secret.path(home).symlink_to(victim)
    with pytest.raises(GroundupError):
        api_secret.read_or_make(home)
    assert victim.exists() is not dangling


def test_a_prefect_of_ones_own_does_not_get_our_secret(home: Home) -> None:
    api_secret.read_or_make(home)
    kept = {"PREFECT_API_URL": "https://prefect.example/api", "PREFECT_API_AUTH_STRING": "mine:own"}
    with mock.patch.dict(os.environ, kept):
        settings = server.environment(home)
    assert settings["PREFECT_API_URL"] == "https://prefect.example/api"
    assert not [name for name in settings if "AUTH" in name], "what the user set stays"


def test_a_server_of_an_older_groundup_which_was_open_is_not_used(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    private_home.prepare(home)
    monkeypatch.setitem(processes.MODULES, "server", "timeit")
    with mock.patch.dict(os.environ, clear=False):
        os.environ.pop("PREFECT_API_URL", None)
        processes.spawn(
            home, "server", ["timeit", "-n1", "-r1", "import time; time.sleep(600)"], port=4200
        )
        try:
            with pytest.raises(
                GroundupError, match=r"lets everybody in\n.*groundup down, then groundup up"
            ):
                server.up(home)
            os.environ.pop("PREFECT_API_URL")
            with (
                pytest.raises(GroundupError, match="lets everybody in"),
                server.running_server(home, "prefect"),
            ):
                pass
        finally:
            processes.stop(home, "server")
