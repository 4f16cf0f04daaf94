"""Credentials in addresses reach no error, ref, manifest, log, database or list of processes.

Neither does the content of a file that is no recipe.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import stages
from data_contracts import ConfigError, InputError, Store
from data_contracts.credentials import holds_credentials, masked, nothing_secret
from flows import recipe
from flows.cli import commands as cli
from flows.home import Home
from tests import prefect_database
from tests.data_contracts import publishing
from tests.flows.conftest import REPOSITORY, Groundup, free_port

SECRET = "hunter2"
ADDRESSES = [
    f"https://user:{SECRET}@example.org/x.jsonl",
    f"https://{SECRET}@example.org/x.jsonl",
    f"HTTPS://user:{SECRET}@example.org",
    f"https://user:a/b#c?d@{SECRET}@example.org/",
    f"https://user:8000{SECRET}@example.org/",
    f"https://user:{SECRET} with blanks@example.org/",
    f"s3://AKIA123:{SECRET}@bucket/prefix",
    f"zip://x.jsonl::https://user:{SECRET}@example.org/x.zip",
    f"https://example.org/x?token={SECRET}",
    f"https://example.org/x?page=1&access_token={SECRET}&n=2",
    f"https://example.org/x?X-Amz-Signature={SECRET}",
    f"https://example.org/x?api_key={SECRET}#top",
    f"https://example.org/#id_token={SECRET}",
    f"https://example.org/x?sig={SECRET}",
    f"https://example.org/x?key={SECRET * 4}",
    f"https://example.org/x?client_secret={SECRET};a=1",
]
MISSPELLED = [
    f"//user:{SECRET}@example.org/",
    f"HTTPS:\\\\user:{SECRET}@example.org/",
    f"https://user%3A{SECRET}%40example.org/",
]
HARMLESS = [
    "https://example.org/",
    "https://example.org:8000/@user",
    "https://[::1]:8000/@user",
    "https://example.org/a?b=c@d",
    "https://example.org/a%40b",
    "https://example.org/?author=me&design=2&monkey=3&key=name",
    "git@github.com:a/b",
    "someone@example.org",
    "data/*.jsonl",
    "max_tokens=5",
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_credentials_in_an_address_are_found(address: str) -> None:
    assert holds_credentials(address)


@pytest.mark.parametrize("address", [*(one for one in ADDRESSES if " " not in one), *MISSPELLED])
def test_credentials_in_an_address_are_masked_wherever_it_stands(address: str) -> None:
    for text in (
        address,
        f"cannot be read: {address}",
        f"[{address!r}, 'x']",
        json.dumps({"a": address}),
    ):
        assert SECRET not in masked(text)
        assert masked(masked(text)) == masked(text)


@pytest.mark.parametrize("address", HARMLESS)
def test_addresses_without_credentials_stay_as_they_are(address: str) -> None:
    assert masked(f"cannot read {address!r}: {address}") == f"cannot read {address!r}: {address}"
    assert not holds_credentials(address)


def test_prose_that_mentions_such_an_address_is_no_address() -> None:
    assert not holds_credentials("What does https://user:password@host mean?")


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize(
    "source",
    [
        {"kind": "dataset", "dataset": "json", "data_files": ["{}"]},
        {"kind": "dataset", "dataset": "{}"},
        {"kind": "web", "name": "w", "seeds": ["https://a.org", "{}"]},
        {"kind": "web", "name": "w", "seeds": ["https://a.org"], "scope": ["{}"]},
        {"kind": "web", "name": "w", "seeds": ["https://a.org"], "allow_origins": ["{}"]},
        {"kind": "files", "paths": ["{}"]},
        {"kind": "files", "paths": ["x"], "{}": 1},
        {"kind": "{}"},
    ],
    ids=str,
)
def test_settings_with_credentials_are_refused_with_advice_and_without_the_secret(
    source: dict[str, Any], address: str
) -> None:
    filled = json.loads(json.dumps(source).replace("{}", address))
    for load in (
        lambda: recipe.load("own", [f"crawl.sources={json.dumps([filled])}"]),
        lambda: stages.stage("crawl").config_class.parse({"sources": [filled]}, "crawl"),
    ):
        with pytest.raises(ConfigError, match="environment: NETRC") as error:
            load()
        assert SECRET not in str(error.value).replace(
            f"--set crawl.sources={json.dumps([filled])}", ""
        )


@pytest.mark.parametrize("stage", stages.NAMES)
def test_no_setting_of_any_stage_takes_credentials(stage: str) -> None:
    config_class = stages.stage(stage).config_class
    for field in config_class.model_fields:
        config, mistakes = config_class.check({field: [ADDRESSES[0]]}, stage)
        assert config is None
        assert SECRET not in str(mistakes)


def test_a_recipe_file_with_credentials_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "stages:\n  crawl:\n    sources:\n    - kind: dataset\n      dataset: json\n"
        f"      data_files: ['{ADDRESSES[0]}']\n"
    )
    with pytest.raises(
        ConfigError,
        match=r"line 6: crawl\.sources\.0\.data_files\.0 is an address with credentials",
    ) as error:
        recipe.load(str(path))
    assert SECRET not in str(error.value)


def test_errors_mask_whatever_they_quote() -> None:
    error = InputError(
        f"source {ADDRESSES[0]}", f"no answer from {ADDRESSES[8]}", f"open {ADDRESSES[2]}"
    )
    assert SECRET not in f"{error} {error!r} {error.args} {error.what} {error.why} {error.fix}"


def test_what_caused_an_error_is_masked_too_and_so_is_an_error_that_keeps_its_text_elsewhere() -> (
    None
):
    class OwnTextError(Exception):
        def __str__(self) -> str:
            return f"proxy {ADDRESSES[0]}"

    def fail() -> None:
        try:
            try:
                raise OSError(f"proxy {ADDRESSES[0]} refused")
            except OSError as below:
                raise ValueError(f"no answer from {ADDRESSES[8]}") from below
        except ValueError as error:
            raise RuntimeError("failed") from error

    with pytest.raises(RuntimeError, match="failed") as error, nothing_secret():
        fail()
    assert SECRET not in f"{error.value} {error.value.__cause__} {error.value.__cause__.__cause__}"
    with (
        pytest.raises(RuntimeError, match=r"OwnTextError: proxy https://\*\*\*@") as replaced,
        nothing_secret(),
    ):
        raise OwnTextError
    assert replaced.value.__cause__ is None
    assert replaced.value.__suppress_context__


@pytest.fixture
def groundup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run `groundup …` in this process, with a separate home, and return its output."""
    monkeypatch.setenv("GROUNDUP_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("GROUNDUP_STORE", raising=False)

    def run(*arguments: str) -> str:
        done: Result = CliRunner().invoke(cli.app, list(arguments))
        return f"{done.output} {done.exception}"

    return run


def test_a_store_whose_url_has_credentials_is_refused_by_every_command(
    groundup, monkeypatch
) -> None:
    monkeypatch.setenv("GROUNDUP_STORE", f"s3://key:{SECRET}@bucket/prefix")
    for command in (["ls"], ["run", "--preview"], ["up"], ["show", "demo/tokenizer"]):
        output = groundup(*command)
        assert "is an address with credentials in it" in output
        assert SECRET not in output


def test_what_an_older_groundup_stored_with_credentials_is_shown_masked(
    groundup, tmp_path: Path
) -> None:
    store = Store(tmp_path / "home" / "store")
    sources = [{"kind": "dataset", "dataset": "json", "data_files": [ADDRESSES[0]]}]
    settings = {"sources": sources}
    artifact, _ = store.publish(
        "raw_documents", publishing.identity("raw_documents", {}), {}, settings, lambda _: {}
    )
    store.point("demo", "raw_documents", artifact, made_by="x")
    store.remember_recipe("demo", "own", [f"crawl.sources={json.dumps(sources)}"])
    assert "***@example.org" in groundup("show", "demo/raw_documents")
    for command in (
        ["show", "demo/raw_documents"],
        ["show", "demo/raw_documents", "--json"],
        ["ls"],
        ["ls", "demo"],
        ["ls", "demo", "--json"],
        ["run", "--name", "demo", "--preview"],
    ):
        assert SECRET not in groundup(*command)


NOT_RECIPES = [
    f"root:{SECRET}:19000:0:99999:7:::\ndaemon:{SECRET}:19000\n",
    f"root: {SECRET}\n{SECRET}: x\n",
    f"PASSWORD={SECRET}\n",
    f"[default]\naws_secret_access_key = {SECRET}\n",
    f'{{"password": "{SECRET}"}}',
    f"- {SECRET}\n- x\n",
    f"{SECRET}: [a\n",
    f"{SECRET}: 1\n{SECRET}: 2\n",
    f"1: {SECRET}\n",
    f"x: !{SECRET} y\n",
    f"x: *{SECRET}\n",
    f"%{SECRET} 1\n---\nx\n",
    f"x: '{SECRET}\n",
    f"x: 0b{SECRET}\n---\n{SECRET}",
    f"-----BEGIN OPENSSH PRIVATE KEY-----\n{SECRET}\n-----END OPENSSH PRIVATE KEY-----\n",
    f"\0{SECRET}\0",
]


@pytest.mark.parametrize("text", NOT_RECIPES)
def test_nothing_of_a_file_that_is_no_recipe_is_told(tmp_path: Path, text: str) -> None:
    path = tmp_path / "file"
    path.write_text(text)
    for load in (lambda: recipe.load(str(path)), lambda: recipe.load(_extending(tmp_path, path))):
        with pytest.raises(ConfigError) as error:
            load()
        assert SECRET not in str(error.value)
        assert error.value.__cause__ is None
        assert error.value.__suppress_context__, "a trace would show it"


def _extending(folder: Path, other: Path) -> str:
    path = folder / "extending.yaml"
    path.write_text(f"extends: {other}\n")
    return str(path)


class Locked(BaseHTTPRequestHandler):
    """A file for those who know the password."""

    def do_GET(self) -> None:
        wanted = "Basic " + base64.b64encode(f"user:{SECRET}".encode()).decode()
        body = b'{"text": "A page behind a password."}\n'
        if self.headers.get("Authorization") != wanted:
            self.send_response(401)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815  http.server calls it so

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def locked() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Locked)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/x.jsonl"
    server.shutdown()
    server.server_close()


@pytest.mark.slow
def test_the_advice_works_a_data_set_behind_a_password_is_read_with_netrc(
    tmp_path: Path, locked: str
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine 127.0.0.1 login user password {SECRET}\n")
    netrc.chmod(0o600)
    groundup = Groundup(tmp_path / "home", 0)
    groundup.environment |= {
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
        "HF_HOME": str(tmp_path / "hf"),
    }
    sources = f"sources=[{{kind: dataset, dataset: json, data_files: ['{locked}']}}]"
    command = ("stage", "crawl", "--name", "pages", "--set", sources)
    assert groundup.run(*command, check=False).returncode == 2, (
        "without the password there is nothing"
    )
    groundup.environment["NETRC"] = str(netrc)
    groundup.run(*command)
    assert kept(tmp_path / "home", SECRET) == []


def kept(folder: Path, secret: str) -> list[Path]:
    """Return the files that contain the secret."""
    return [
        path
        for path in folder.rglob("*")
        if path.is_file() and secret.encode() in path.read_bytes()
    ]


WORK = """
from datasets import config
config.STREAMING_READ_MAX_RETRIES = 1
config.STREAMING_READ_RETRY_INTERVAL = 0  # or it would try a missing proxy for minutes
from flows.home import current_home
from flows.prefect_host.server import running_server
with running_server(current_home(), "prefect"):
    from flows.build_llm import build_llm
    from flows.stage_flows import crawl
    import sys
    for run in (
        lambda: build_llm(recipe_file=sys.argv[1], name="a"),
        lambda: crawl(name="b", recipe="own", overrides=[sys.argv[2]]),
    ):
        try:
            run()
        except Exception as error:
            print(f"failed: {error}", flush=True)
    import psutil
    for child in psutil.Process().children(recursive=True):
        print(*child.cmdline())
"""


@pytest.mark.slow
def test_a_wrong_file_and_the_password_of_a_proxy_reach_neither_database_nor_logs_nor_processes(
    tmp_path: Path,
) -> None:
    wrong = tmp_path / "shadow"
    wrong.write_text(f"root: {SECRET}\n")
    home = Home(tmp_path / "home")
    prefect_database.copy_into(home.path)
    kept_environment = {
        k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "GROUNDUP_"))
    }
    settings = {
        "GROUNDUP_HOME": str(home.path),
        "GROUNDUP_PORT": str(free_port()),
        "PYTHONPATH": str(REPOSITORY),
    }
    proxy = {
        "HTTPS_PROXY": f"http://user:{SECRET}@127.0.0.1:9",
        "https_proxy": f"http://user:{SECRET}@127.0.0.1:9",
    }
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            WORK,
            str(wrong),
            "crawl.sources=[{kind: dataset, dataset: json,"
            " data_files: ['https://example.org/x.jsonl']}]",
        ],
        env=kept_environment | settings | proxy,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "is no recipe" in done.stdout, done.stdout + done.stderr
    assert "failed: crawl source dataset" in done.stdout, "the proxy was asked"
    assert "flows.prefect_host.prefect_server" in done.stdout, "the processes were looked at"
    assert SECRET not in done.stdout + done.stderr
    assert kept(home.path, SECRET) == []
    assert kept(home.path, "is no recipe"), "the database was looked at, and has the reason"
