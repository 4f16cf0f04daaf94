"""A real Prefect with its deployments and worker, and a real browser, each in its own folder."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from data_contracts import Artifact, Identity, Manifest, Store
from data_contracts.store.artifact import MANIFEST, InputRef
from flows.home import Home
from flows.prefect_host import api_secret, sign_in
from flows.prefect_host.server_address import Address
from tests import prefect_database

REPOSITORY = Path(__file__).parents[2]
FINAL_STATES = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


class Groundup:
    """The command line in `folder`, with its own home, and the API of the Prefect it starts."""

    def __init__(
        self, home: Path, port: int, folder: Path = REPOSITORY, makes_database: bool = False
    ):
        """makes_database: The home gets no database of Prefect, so that its server makes one."""
        self.home, self.port, self.folder = home, port, folder
        self._makes_database = makes_database
        self.url = f"http://127.0.0.1:{port}"
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "GROUNDUP_"))}
        self.environment = kept | {
            "GROUNDUP_HOME": str(home),
            "GROUNDUP_PORT": str(port),
            "COLUMNS": "160",
        }

    def run(
        self, *arguments: str, check: bool = True, typed: str = "", timeout: float = 900
    ) -> subprocess.CompletedProcess[str]:
        """Run `groundup …` and return both outputs as text.

        Args:
            *arguments: The command and its options.
            check: Whether to fail if the command does.
            typed: What the person types, before the end of the input.
            timeout: In seconds.
        """
        done = subprocess.run(
            self._command(arguments),
            env=self.environment,
            cwd=self.folder,
            input=typed,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    @contextmanager
    def started(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """`groundup …` under way, its output in one pipe; killed at the end if it still runs."""
        pipe = subprocess.PIPE
        with subprocess.Popen(
            self._command(arguments),
            env=self.environment,
            cwd=self.folder,
            stdout=pipe,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def _command(self, arguments: tuple[str, ...]) -> list[str]:
        if arguments[0] in ("up", "run") and "--preview" not in arguments:
            self.set_up()
        return [str(Path(sys.executable).with_name("groundup")), *arguments]

    def set_up(self) -> None:
        """Give the home what `make setup` gives it, before anything starts a server."""
        if not self._makes_database:
            prefect_database.copy_into(self.home)

    @property
    def secret(self) -> str:
        """The API secret that the first start made."""
        return api_secret.read_or_make(Home(self.home))

    def visit(self, page: Any, path: str) -> None:
        """Open a page of the UI as a person does who was given the address by `up`."""
        if not page.url.startswith(self.url):
            follow_sign_in(page, sign_in.new_address(Address(port=self.port), self.secret))
        page.goto(f"{self.url}{path}")

    def api(self, path: str, method: str = "", **body: Any) -> Any:
        """The answer of Prefect's API; by default POST with a body, GET without."""
        credentials = tuple(self.secret.split(":", 1))
        api = {"base_url": f"{self.url}/api", "auth": credentials}
        with httpx.Client(**api, trust_env=False, timeout=120) as client:  # for a busy machine
            me = str(uuid4())
            token = (
                client.get("/csrf-token", params={"client": me}).raise_for_status().json()["token"]
            )
            headers = {"Prefect-Csrf-Token": token, "Prefect-Csrf-Client": me}
            method = method or ("POST" if body else "GET")
            answer = client.request(
                method, path, json=body or None, headers=headers
            ).raise_for_status()
            return answer.json() if answer.content else None

    def deployment(self, name: str) -> dict[str, Any]:
        (found,) = self.api("/deployments/filter", deployments={"name": {"any_": [name]}})
        return found

    def wait_for(self, flow_run: str, seconds: float = 600) -> dict[str, Any]:
        """The flow run when it has ended; fails if it did not complete."""
        deadline = time.monotonic() + seconds
        run = self.api(f"/flow_runs/{flow_run}")
        while run["state_type"] not in FINAL_STATES:
            assert time.monotonic() < deadline, f"still {run['state_name']} after {seconds} s"
            time.sleep(1)
            run = self.api(f"/flow_runs/{flow_run}")
        if run["state_type"] != "COMPLETED":
            logs = self.api("/logs/filter", logs={"flow_run_id": {"any_": [flow_run]}})
            messages = [run["state"]["message"], *(entry["message"] for entry in logs)]
            pytest.fail("\n".join(messages))
        return run


def follow_sign_in(page: Any, address: str) -> None:
    """Open an address that signs in, and wait until the UI has begun.

    The UI first asks whether the secret is right. It signs out whoever leaves it meanwhile.
    """
    page.goto(address)
    page.wait_for_url(lambda url: sign_in.PAGE_PATH not in url)
    page.get_by_role("link", name="Deployments").first.wait_for()


@pytest.fixture
def recorded(store: Store) -> Callable[..., Artifact]:
    """Make artifacts of which the store has nothing but the manifest.

    recorded("clean_documents", "clean", raw_documents=artifact) makes one from another.
    """

    def make(artifact_type: str, stage: str, **inputs: Artifact) -> Artifact:
        as_of = str(len(store.ids()))
        ids = {name: artifact.id for name, artifact in inputs.items()}
        refs = {
            name: InputRef(artifact_type=artifact.artifact_type, id=artifact.id)
            for name, artifact in inputs.items()
        }
        identity = Identity(stage, 1, f"{artifact_type} 1.0.0", {}, ids, as_of)
        manifest = Manifest(
            groundup="0",
            id=identity.id,
            artifact_type=artifact_type,
            contract="1.0.0",
            stage=stage,
            stage_version=1,
            as_of=as_of,
            config={},
            settings={},
            inputs=refs,
            rows={},
            facts={},
            files=[],
            started="",
            finished="",
        )
        folder = store.path(artifact_type, identity.id)
        folder.mkdir(parents=True)
        (folder / MANIFEST).write_text(manifest.model_dump_json())
        return store.open(artifact_type, identity.id)

    return make


def free_port() -> int:
    """A port on which nothing listens.

    It is chosen by chance, so that processes that test side by side have different ones, and below
    those that systems give to outgoing connections, of which one could take it before the server.
    """
    while True:
        port = random.SystemRandom().randrange(15_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@pytest.fixture(scope="session")
def groundup(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Groundup]:
    """`groundup up` in a new folder; `groundup down` at the end."""
    started = Groundup(
        tmp_path_factory.mktemp("home"), free_port(), tmp_path_factory.mktemp("folder")
    )
    try:
        assert started.url in started.run("up").stdout
        yield started
    finally:
        assert "server" in started.run("down").stdout


@pytest.fixture
def browser_page() -> Iterator[Any]:
    """A page of headless Chromium."""
    with chromium_page() as page:
        yield page


def chromium() -> str | None:
    """The path of Chromium or of a browser like it, if there is one."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = [path for path in map(shutil.which, names) if path]
    return found[0] if found else None


@contextmanager
def chromium_page(*arguments: str) -> Iterator[Any]:
    """A page of a headless Chromium that gets `arguments`; skips the test where there is none."""
    program = chromium()
    if program is None:
        pytest.skip(
            "no Chromium on this machine: infra/install_test_programs.sh installs it with apt"
        )
    from playwright.sync_api import sync_playwright

    quiet = [
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ]
    quiet += ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=[*quiet, *arguments])
        page = browser.new_page(viewport={"width": 1400, "height": 1600}, ignore_https_errors=True)
        page.set_default_timeout(180_000)  # a busy machine is an ordinary one
        yield page
        browser.close()
