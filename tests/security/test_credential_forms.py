"""A password with any character in it is refused in settings and masked in texts, soon."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import stages
from data_contracts import InputError
from data_contracts.credentials import (
    holds_credentials,
    masked,
    masked_address,
    masked_values,
    nothing_secret,
)
from data_contracts.foreign_text import brief
from flows.cli import commands as cli
from stages.reporting.markdown import plain, quotation
from tests.flows.conftest import Groundup

SECRET = "hunter2"
NAMES = [
    "pass",
    "pw",
    "pwd",
    "passwd",
    "passphrase",
    "db_pass",
    "sas",
    "sig",
    "apikey",
    "api_key",
    "access_key",
    "secret_key",
    "private-key",
    "auth",
    "authorization",
    "credentials",
]
FORMS = [
    f'https://user:p"a {SECRET}@host/',
    f"https://user:p'{SECRET}@host",
    f"https://user:p`{SECRET}@host",
    f"https://user:\t{SECRET}@host",
    f"https://user:<{SECRET}>@host",
    f"https://user:a\\{SECRET}@host/",
    f"https://user:p@a {SECRET}@host/",
    f"s3://key:se {SECRET}@bucket/prefix",
    f"postgresql+asyncpg://user:{SECRET}@host/database",
    f"redis://:{SECRET}@localhost:6379/0",
    f"hf://{SECRET}@datasets",
    f"https://{SECRET * 40}:x-oauth-basic@example.org/",
    f"http://DOMAIN\\user:{SECRET}@proxy:8080",
    f"https://user:{SECRET}@",
    f"https://user:{SECRET}@/path",
    f"https:/user:{SECRET}@host/x",
    f"https:user:{SECRET}@host/x",
    f"https:\\/\\/user:{SECRET}@host/",
    f"https%3A%2F%2Fuser%3A{SECRET}%40host%2F",
    f"https%253A%252F%252Fuser%253A{SECRET}%2540host",
    f"https://example.org/?next=https%3A%2F%2Fuser%3A{SECRET}%40host%2F",
    f'https://example.org/x?token=p"a{SECRET}&n=1',
    f"https://example.org/x?token=p a{SECRET}&n=1",
    f"https://example.org/x?a=1\\u0026token={SECRET}",
    f"https://example.org/x%3Ftoken%3D{SECRET}",
    f"https://example.org/x;token={SECRET}",
    f"https://example.org/x;v=1;token={SECRET}",
    f"https://example.org/x?a=1;sig={SECRET}",
    f"https://example.org/x?token=p;{SECRET}",
    f"https://example.org/x?token=p;a={SECRET}",
    f"https://example.org/x;%74oken={SECRET}",
    f"https://example.org/x?%74oken={SECRET}",
    f"https://example.org/x?tok%65n={SECRET}&n=1",
    f"https://example.org/x;a=1&%2573%2569%2567={SECRET}",
    f"https://example.org/x?api%5fk%45y%3D{SECRET}",
    f"https://example.org/x?%6Bey={SECRET * 4}",
    f"https://example.org/x;key={SECRET * 4}",
    f"https://user:8080/{SECRET}@host",
    f"https://user:1234?{SECRET}@host/path",
    f"https://user:1234#{SECRET}@host",
    f"https://user:1234%2F{SECRET}@host",
    f"https:/user:8080/{SECRET}@host",
    f"https://user:p{SECRET}&#64;host/",
    f"https://user:8080/{SECRET}&#x40;host/",
    f"https://{SECRET}&commat;host/",
    f"https://user:{SECRET}&#64host/",
    f"https://user:{SECRET}&#0000000064;host/",
    f"https://user&colon;{SECRET}@host/",
    f"https://user\\u003a{SECRET}@host/",
    f"https://user:{SECRET}\\u0040host/",
    f"https://{'u' * 300}:p/{SECRET}@host/",
    *[f"https://example.org/x?a=1&{name}={SECRET}&b=2" for name in NAMES],
]
# What looks like other text: SECURITY.md says so under "Not protected".
UNTOLD = [
    f"user:{SECRET}@host",
    f"user:{SECRET}@example.org:5432/database",
    f"https://first.last:8080/{SECRET}@host",
    f"https://example.org/x?word={SECRET}",
    f"https://user:{SECRET}＠host",
    f"https://user:{SECRET}\\x40host",
    f"https://user:{SECRET}%2525252540host",
    f"https://example.org/x?token[]={SECRET}",
    f"https&#x3a;&#x2f;&#x2f;user&#x3a;{SECRET}&#x40;host",
    f"https:/\t/user:{SECRET}@host/",
    f"https://example.org/x?token\\u003d{SECRET}",
    f"Authorization: Bearer {SECRET}",
]
HARMLESS = [
    "https://example.org: no answer from someone@example.org",
    "https://example.org:8000: ask someone@example.org",
    "see https://example.org, or someone@example.org",
    '["https://example.org","someone@example.org"]',
    "<https://example.org> (someone@example.org)",
    "http://localhost:4200/api by someone@example.org",
    "// TODO(someone@example.org): later",
    "C:/data/a@b",
    "Invalid port: '99999'",
    'up(at, {"--port": port, "--host": host, "--url": url})',
    "git@example.org:group/project.git",
    "git clone git@example.org:8080/project.git",
    "the meeting at 12:30@room 4, or mail to:someone@example.org",
    "mailto:someone@example.org",
    "image: registry:5000/name@sha256:0123",
    "https://example.org:8080/@someone/1234",
    "http://localhost:4200/a@b",
    "http://minio:9000 by someone@example.org",
    "http://minio:9000, someone@example.org",
    '["http://minio:9000","someone@example.org"]',
    "https://example.org/x?max_tokens=100&compass=north&first=1",
    "// ratio 3:1/2 @decorator",
    "e&&e.protocol&&e.auth===void 0;t.credentials=`include`",
    "if (a //b:80/c@d) return;",
    "&#64; is an at sign, and so is %40",
    "https://example.org/x?%6Eame=1&b%61r=2&w%6Frd%5Fs=3",
    "https://example.org/x;jsessionid=1;v=2",
    "https://example.org/x?k%65y=word",
]


@pytest.mark.parametrize("address", FORMS)
def test_credentials_of_any_form_are_refused_and_masked_in_any_text(address: str) -> None:
    assert holds_credentials(address)
    assert holds_credentials(f' "{address}" ')
    assert SECRET not in masked_address(address)
    texts = [
        address,
        f"cannot be read: {address}",
        f"cannot read {address!r}: no answer",
        f'source "{address}", of two',
        f"see {address} and then more",
        f"[{address!r}, 'x']",
        json.dumps({"source": address}),
        f"first line\n`{address}`\nlast line",
    ]
    for text in texts:
        assert SECRET not in masked(text)
        assert masked(masked(text)) == masked(text)


@pytest.mark.parametrize("text", UNTOLD)
def test_what_looks_like_other_text_is_neither_refused_nor_masked(text: str) -> None:
    """Not a wish: who mends one of them takes it out of SECURITY.md, too."""
    assert not holds_credentials(text)
    assert masked(f"see {text}") == f"see {text}"


def test_a_blank_behind_what_looks_like_a_host_ends_an_address_in_a_text() -> None:
    address = f"https://first.last: {SECRET}@host"
    assert holds_credentials(address)
    assert masked(f"see {address}") == f"see {address}"


@pytest.mark.parametrize("address", FORMS)
def test_a_setting_of_prose_is_not_refused_but_masked_where_it_is_shown(address: str) -> None:
    assert not holds_credentials(f"Ask as on {address}")
    assert SECRET not in masked(f"Ask as on {address}")


@pytest.mark.parametrize("text", HARMLESS)
def test_a_text_without_credentials_stays_as_it_is(text: str) -> None:
    assert masked(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "https://example.org, mail me@example.org",
        "'https://docs.example.org, or someone@example.org'",
    ],
)
def test_a_setting_of_a_host_and_then_a_comma_and_a_blank_is_prose(text: str) -> None:
    assert not holds_credentials(text)
    assert masked_address(text) == text


@pytest.mark.parametrize(
    "text",
    [
        f"https://example.org, x:{SECRET}@host",
        f"https://user, {SECRET}@host",
        f"https://example.org,{SECRET}@host",
        f"https://example.org: x, {SECRET}@host",
        f"https://example.org, see https://user:{SECRET}@host",
        f"https://example.org, x?token={SECRET}",
        f"https://example.org, x%3A{SECRET}@host",
    ],
)
def test_a_setting_with_a_colon_or_without_a_host_and_a_blank_is_refused(text: str) -> None:
    assert holds_credentials(text)


# Rather too much than too little: SECURITY.md says so.
TOO_MUCH = ["see http://intranet: mail a@b", "file://C:/a@b"]


@pytest.mark.parametrize("text", TOO_MUCH)
def test_what_could_be_a_password_is_masked_although_it_may_be_none(text: str) -> None:
    assert masked(text) != text


def test_what_a_library_takes_for_a_port_is_masked() -> None:
    for text in (
        f"Port could not be cast to integer value as 'p{SECRET}'",
        f"Invalid port: 'a{SECRET}'",
        f'nonnumeric port: "{SECRET}@host"',
    ):
        assert SECRET not in masked(text)


def test_a_cut_in_the_middle_of_an_address_shows_no_password() -> None:
    for length in range(60, 2000, 7):
        text = "x" * length + f" https://user:{SECRET * 3}@host/" + "y" * 2000
        for shown in (brief(text), plain(text), quotation(text)):
            assert "hunter" not in shown


def test_values_are_masked_one_by_one_and_stay_json() -> None:
    values = {"sources": [{"paths": FORMS, FORMS[0]: 1}], "rows": 3, "none": None, "yes": True}
    found = masked_values(values)
    assert SECRET not in json.dumps(found)
    assert found["rows"] == 3
    assert found["none"] is None
    assert found["yes"] is True
    assert len(found["sources"][0]["paths"]) == len(FORMS)


@pytest.mark.parametrize("address", FORMS)
def test_no_stage_takes_them_and_the_error_masks_them(address: str) -> None:
    settings = {"sources": [{"kind": "files", "paths": [address]}]}
    config, mistakes = stages.stage("crawl").config_class.check(settings, "crawl")
    assert config is None
    assert "credentials" in str(mistakes)
    assert SECRET not in str(mistakes)


def test_errors_mask_notes_groups_and_everything_that_caused_them() -> None:
    cause = ValueError(f"no answer from {FORMS[0]}".encode())
    member = OSError(f"refused by {FORMS[7]}")
    group = ExceptionGroup("failed", [member])
    group.add_note(f"tried {FORMS[1]}")
    with pytest.raises(ExceptionGroup) as caught, nothing_secret():
        raise group from cause
    found = caught.value
    told = f"{found} {found.__notes__} {found.exceptions} {found.__cause__}"
    assert SECRET not in told
    assert "tried https://***@host" in told
    error = InputError(f"source {FORMS[0]}", f"no answer: {FORMS[7]}", f"open {FORMS[5]}")
    assert SECRET not in f"{error} {error!r}"


LONG = {
    "slashes": "//" * 500_000,
    "schemes": "a://" * 250_000,
    "quoted schemes": "'a://" * 200_000,
    "backslashes": "\\a\\\\a" * 200_000,
    "encoded slashes": "%2F%2F" * 160_000,
    "users": "//a:b" * 200_000 + " x@y",
    "users without end": "https://a:b " * 80_000,
    "at": "@" * 1_000_000,
    "without slashes": "http:" * 200_000 + "@",
    "parameters": "&token=a b" * 100_000,
    "semicolons": "https://a/" + ";token" * 160_000,
    "encoded names": "https://a/" + "&" + "%74oken" * 140_000,
    "encoded separators": "https://a/" + "%3B%74%253F" * 90_000,
    "encoded percent": "https://a/" + "%2525" * 200_000,
    "names": "&" + "token" * 200_000,
    "quoted ports": "port: " * 160_000,
    "blanks": " " * 1_000_000 + "//@",
    "dots": "a.b+c-" * 160_000 + "://",
    "ports": "http://u:80/" * 80_000 + " @",
    "long users": "http://" + "u" * 1_000_000 + ":@",
    "users without password": "\\\\user" * 160_000 + ":@",
    "parts of a name": "&" + "a_" * 500_000,
    "encoded at": "&#000" * 200_000 + "@",
}


@pytest.mark.slow
@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_a_hostile_text_takes_time_in_proportion_to_its_length(text: str) -> None:
    """For the 20-fold length, time with its square would be 400-fold: minutes."""
    part = text[-(len(text) // 20) :]

    def seconds(function: Any, given: str) -> float:
        begun = time.process_time()
        function(given)
        return time.process_time() - begun

    for function in (masked, holds_credentials):
        assert seconds(function, text) < 100 * seconds(function, part) + 5


@pytest.mark.parametrize("address", [FORMS[0], FORMS[7]])
def test_every_command_that_is_given_one_says_so_without_it(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GROUNDUP_HOME", str(tmp_path / "home"))
    sources = json.dumps([{"kind": "files", "paths": [address]}])
    for command in (
        ["run", "--recipe", "own", "--set", f"crawl.sources={sources}"],
        ["stage", "crawl", "--name", "x", "--set", f"sources={sources}"],
    ):
        done = CliRunner().invoke(cli.app, command)
        told = f"{done.output} {done.exception}"
        assert "is an address with credentials" in told
        assert SECRET not in told
    monkeypatch.setenv("GROUNDUP_STORE", address)
    done = CliRunner().invoke(cli.app, ["ls"])
    assert SECRET not in f"{done.output} {done.exception}"
    assert not (tmp_path / "home" / "store").exists()


@pytest.mark.slow
def test_the_real_command_writes_none_of_it_anywhere(tmp_path: Path) -> None:
    groundup = Groundup(tmp_path / "home", 0, tmp_path)
    sources = json.dumps([{"kind": "files", "paths": [FORMS[0]]}])
    for as_json in ([], ["--json"]):
        done = groundup.run(
            "stage", "crawl", "--name", "x", "--set", f"sources={sources}", *as_json, check=False
        )
        assert done.returncode == 2
        assert SECRET not in done.stdout + done.stderr
    groundup.environment["PREFECT_API_URL"] = f'http://user:p"a {SECRET}@127.0.0.1:9/api'
    done = groundup.run("up", check=False)
    assert done.returncode == 2
    assert SECRET not in done.stdout + done.stderr
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in written if SECRET.encode() in path.read_bytes()]
