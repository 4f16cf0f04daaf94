"""A store behind a URL, with a real S3 API: two machines, kills between uploads, damage."""

from __future__ import annotations

import errno
import json
import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest

from data_contracts import ArtifactError, ConfigError, Store, open_store
from data_contracts.store.remote import RemoteStore
from tests.data_contracts import publishing

pytestmark = pytest.mark.slow

CANARY = "canary-7c1f"
KEY = ("raw_documents", publishing.IDENTITY.id)

PUBLISH = """
import sys
from pathlib import Path
from data_contracts import GroundupError, open_store
from tests.data_contracts import publishing
try:
    artifact, made = publishing.publish(open_store(sys.argv[1], cache=Path(sys.argv[2])))
except GroundupError as error:
    sys.exit(f"{type(error).__name__}: {error}")
print("made" if made else "reused", artifact.manifest.content)
"""


class Bucket:
    """An S3 server in this process. `before_put` gets the number of each PUT before its effect."""

    def __init__(self) -> None:
        from moto.server import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import make_server

        self.app = DomainDispatcherApplication(create_backend_app)
        self.before_put: Callable[[int], None] = lambda number: None
        self.puts, self._one_at_a_time = 0, threading.Lock()
        self.gets: list[str] = []
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self.server = make_server("127.0.0.1", 0, self._serve, threaded=True)
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def _serve(self, environ, start_response):
        with self._one_at_a_time:  # moto's own check of If-None-Match is not atomic, S3's is
            if environ["REQUEST_METHOD"] == "PUT":
                self.puts += 1
                self.before_put(self.puts)
            elif environ["REQUEST_METHOD"] == "GET":
                self.gets.append(environ["PATH_INFO"])
            return self.app(environ, start_response)


@pytest.fixture(scope="module")
def server() -> Iterator[Bucket]:
    bucket = Bucket()
    yield bucket
    bucket.server.shutdown()


@pytest.fixture
def s3(server, monkeypatch, request) -> str:
    """URL of a fresh prefix in a bucket. The credentials are in the environment, as for a user."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "user")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", CANARY)
    fsspec.filesystem("s3", use_listings_cache=False).makedirs("models", exist_ok=True)
    server.before_put = lambda number: None
    server.puts = 0
    return f"s3://models/{request.node.name.replace('[', '-').replace(']', '')}"


def elsewhere(url: str, tmp_path: Path, machine: str) -> Store:
    return open_store(url, cache=tmp_path / machine)


def run(url: str, cache: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PUBLISH, url, str(cache)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_path_is_a_local_store_and_a_url_a_remote_one(tmp_path, monkeypatch):
    assert type(open_store(tmp_path)) is Store
    assert open_store(f"file://{tmp_path}").root == tmp_path
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path / "cache"))
    one, other = open_store("memory://one"), open_store("memory://other")
    assert isinstance(one, RemoteStore)
    assert one.location == "memory://one"
    assert one.root != other.root
    assert one.root.parent == tmp_path / "cache"


@pytest.mark.parametrize(
    "url",
    [
        f"s3://user:{CANARY}@bucket/prefix",
        f"s3://bucket/prefix?token={CANARY}",
        f"https://x:{CANARY}@host/y",
    ],
)
def test_credentials_in_a_url_are_refused_and_not_repeated(url, tmp_path):
    with pytest.raises(ConfigError, match="credentials do not belong there") as error:
        elsewhere(url, tmp_path, "a")
    assert CANARY not in str(error.value)


def test_a_scheme_that_nobody_knows_is_one_clear_error(tmp_path):
    with pytest.raises(ConfigError, match="Protocol not known"):
        elsewhere("gopher://hole", tmp_path, "a")


def test_what_one_machine_published_another_finds_by_name_and_reads(s3, tmp_path):
    one, other = elsewhere(s3, tmp_path, "one"), elsewhere(s3, tmp_path, "other")
    artifact, made = publishing.publish(one)
    assert made
    assert one.point("demo", "raw_documents", artifact, "run-1")
    assert not other.point("demo", "raw_documents", artifact, "run-2")
    found = other.find("demo/raw_documents", verify=True)
    assert found.path.is_relative_to(other.root)
    assert found.manifest == artifact.manifest
    assert found.read("failures").num_rows == 5
    assert found.check() == 5
    assert other.ids() == [KEY]
    assert other.resolve(KEY[1][:8]) == KEY
    assert other.refs.runs() == ["demo"]
    assert list(other.refs.outputs("demo")) == ["raw_documents"]
    assert publishing.publish(other)[1] is False


def test_to_look_at_an_artifact_takes_its_manifest_and_to_read_it_its_files(s3, server, tmp_path):
    one, other = elsewhere(s3, tmp_path, "one"), elsewhere(s3, tmp_path, "other")
    one.point("demo", "raw_documents", publishing.publish(one)[0], "run-1")
    server.gets.clear()
    found = other.open(*KEY, verify=False)
    assert [path.rpartition("/")[2] for path in server.gets] == ["manifest.json"]
    assert publishing.publish(other)[1] is False
    assert found.rows("failures") == 5
    assert not other.path(*KEY).exists()
    assert found.read("failures").num_rows == 5
    assert found.path == other.path(*KEY)
    server.gets.clear()
    other.open(*KEY, verify=True)
    assert [path.rpartition("/")[2] for path in server.gets] == ["manifest.json"]


def test_a_full_disk_under_the_cache_is_reported_as_that_and_gets_its_space_back(
    s3, tmp_path, monkeypatch
):
    publishing.publish(elsewhere(s3, tmp_path, "one"))
    other = elsewhere(s3, tmp_path, "other")

    def fill(keys, paths):
        Path(paths[0]).write_bytes(b"x" * 1000)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(other.bucket._fs, "get", fill)
    with pytest.raises(ArtifactError, match="the disk is full"):
        other.open(*KEY)
    assert not list((other.root / "drafts").iterdir())


def test_what_is_only_in_the_cache_does_not_exist(s3, tmp_path):
    store = elsewhere(s3, tmp_path, "one")
    publishing.publish(store)
    fsspec.filesystem("s3").rm(f"{s3}/objects", recursive=True)
    assert not store.has(*KEY)
    with pytest.raises(ArtifactError, match="is not in s3://"):
        store.open(*KEY)
    assert store.ids() == []
    publishing.publish(store)  # sends what the cache has
    assert elsewhere(s3, tmp_path, "other").open(*KEY).check() == 5


@pytest.mark.slow
def test_killed_between_uploads_it_is_absent_and_a_rerun_sends_the_rest(s3, server, tmp_path):
    number, digests = 0, set()
    while True:
        number += 1
        url, cache = f"{s3}/{number}", tmp_path / str(number)
        process = None
        server.puts = 0

        def kill(put: int, number: int = number) -> None:
            if put == number + 2:  # the first two PUTs prove that the store keeps what it has
                os.kill(process.pid, signal.SIGKILL)  # noqa: B023
                process.wait()  # noqa: B023

        server.before_put = kill
        process = run(url, cache)
        _, output = process.communicate(timeout=120)
        server.before_put = lambda put: None
        died = process.returncode == -signal.SIGKILL
        assert died or not process.returncode, output
        watcher = elsewhere(url, tmp_path, f"watcher-{number}")
        if not died:
            assert watcher.open(*KEY).check() == 5
            break
        if watcher.has(*KEY):  # the request that carried the manifest was on its way
            watcher.open(*KEY).check()
        artifact, _ = publishing.publish(elsewhere(url, tmp_path, str(number)))
        watcher.open(*KEY).check()
        digests.add(artifact.manifest.content)
    sent = len(watcher.open(*KEY).manifest.files) + 1
    assert number == sent + 1, "each file is sent alone, and the manifest last"
    assert len(digests) == 1


@pytest.mark.slow
def test_of_two_machines_that_publish_at_once_one_wins_and_both_have_its_artifact(s3, tmp_path):
    for number in range(2):
        url = f"{s3}/{number}"
        machines = [run(url, tmp_path / f"{number}-{machine}") for machine in "ab"]
        words = sorted(machine.communicate(timeout=120)[0].split()[0] for machine in machines)
        assert words == ["made", "reused"]
        manifests = {
            elsewhere(url, tmp_path, f"{number}-{machine}").open(*KEY).manifest.model_dump_json()
            for machine in "ab"
        }
        assert len(manifests) == 1


def test_the_loser_of_two_different_results_takes_the_winners_and_leaves_nothing_behind(
    s3, tmp_path
):
    slow, fast = elsewhere(s3, tmp_path, "slow"), elsewhere(s3, tmp_path, "fast")

    def make(draft):
        _, made = publishing.publish(fast)
        assert made
        draft.write("failures", [publishing.FAILURE])
        return {}

    artifact, made = slow.publish("raw_documents", publishing.IDENTITY, {}, {}, make)
    assert not made
    assert artifact.manifest == fast.open(*KEY).manifest
    assert artifact.check() == 5
    there = fsspec.filesystem("s3", use_listings_cache=False).find(f"{s3}/objects")
    assert len(there) == len(artifact.manifest.files) + 1


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone", "manifest"])
def test_a_damaged_remote_object_is_found_and_never_reaches_the_cache(s3, tmp_path, damage):
    publishing.publish(elsewhere(s3, tmp_path, "one"))
    files = fsspec.filesystem("s3", use_listings_cache=False)
    path = next(
        p
        for p in files.find(f"{s3}/objects")
        if p.endswith("manifest.json" if damage == "manifest" else "failures/part-00000.parquet")
    )
    data = files.cat_file(path)
    if damage == "gone":
        files.rm_file(path)
    else:
        files.pipe_file(
            path,
            {
                "cut": data[:-1],
                "flipped": data[:50] + bytes([data[50] ^ 1]) + data[51:],
                "manifest": b"{",
            }[damage],
        )
    other = elsewhere(s3, tmp_path, "other")
    with pytest.raises(
        ArtifactError, match=r"in s3://models.*(part-00000.parquet|manifest.json)"
    ) as error:
        other.open(*KEY)
    assert "groundup rm raw_documents/" in error.value.fix
    assert not other.path(*KEY).exists()
    assert not list((other.root / "drafts").glob("*"))


def test_a_damaged_cache_is_found(s3, tmp_path):
    store = elsewhere(s3, tmp_path, "one")
    artifact, _ = publishing.publish(store)
    artifact.table_paths("failures")[0].write_bytes(b"")
    with pytest.raises(ArtifactError, match=r"failures/part-00000.parquet has 0 bytes"):
        store.open(*KEY)


def test_an_artifact_that_was_made_again_elsewhere_replaces_the_cached_one(s3, tmp_path):
    one, other = elsewhere(s3, tmp_path, "one"), elsewhere(s3, tmp_path, "other")
    publishing.publish(one)
    other.open(*KEY)
    fsspec.filesystem("s3").rm(f"{s3}/objects", recursive=True)
    again = elsewhere(s3, tmp_path, "third")

    def make(draft):
        draft.write("failures", [publishing.FAILURE])
        return {}

    again.publish("raw_documents", publishing.IDENTITY, {}, {}, make)
    assert other.open(*KEY).check() == 1


def test_an_unreachable_bucket_is_reported_before_any_work(s3, tmp_path):
    store = elsewhere("s3://no-such-bucket/x", tmp_path, "one")
    with pytest.raises(
        ArtifactError, match=r"store s3://no-such-bucket/x: groundup-store cannot be reached"
    ) as error:
        store.publish(
            "raw_documents", publishing.IDENTITY, {}, {}, lambda draft: pytest.fail("work began")
        )
    assert "credentials" in error.value.fix
    assert CANARY not in str(error.value)


def test_a_store_that_ignores_the_condition_is_refused_before_any_work(s3, tmp_path, monkeypatch):
    store = elsewhere(s3, tmp_path, "one")
    monkeypatch.setattr(store.bucket, "create", lambda key, data: True)
    with pytest.raises(
        ArtifactError, match="takes a second write of an entry that must be written once"
    ):
        publishing.publish(store)


NAMES = """
import sys
from data_contracts.store.refs import Ref, Refs
from data_contracts.store.remote import Bucket
refs = Refs(Bucket(sys.argv[1]))
for n in range(8):
    id = f"{int(sys.argv[2]):012x}{n:012x}"
    facts = {"at": "now", "run": "r", "stage": "s", "settings": {}, "as_of": None}
    ref = Ref(artifact_type="tokenizer", id=id, **facts)
    assert refs.set("demo", "output", ref)
"""


@pytest.mark.slow
def test_refs_in_a_bucket_never_lose_an_update(s3, tmp_path):
    writers = [
        subprocess.Popen([sys.executable, "-c", NAMES, f"{s3}/refs", str(w)]) for w in range(2)
    ]
    assert [writer.wait(120) for writer in writers] == [0, 0]
    history = [ref.id for ref in elsewhere(s3, tmp_path, "a").refs.history("demo", "output")]
    assert sorted(history) == sorted(f"{w:012x}{n:012x}" for w in range(2) for n in range(8))


def test_no_secret_is_in_anything_that_is_stored(s3, tmp_path):
    store = elsewhere(s3, tmp_path, "one")
    artifact, _ = publishing.publish(store)
    store.point("demo", "raw_documents", artifact, "run-1")
    files = fsspec.filesystem("s3", use_listings_cache=False)
    stored = {path: files.cat_file(path) for path in files.find(s3)}
    stored |= {str(path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert len(stored) > 8
    assert [path for path, data in stored.items() if CANARY.encode() in data] == []
    assert "endpoint" not in json.dumps(artifact.manifest.model_dump())


READ = """
import os, pickle, sys
from data_contracts import open_artifact
artifact = open_artifact(pickle.load(sys.stdin.buffer))
rows = artifact.read("failures").num_rows
print(rows, artifact.path.is_relative_to(os.environ["GROUNDUP_CACHE"]))
"""


def test_a_worker_that_sees_nothing_of_this_machine_reads_an_artifact_by_its_key(
    s3, tmp_path, monkeypatch
):
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path / "driver"))
    artifact, _ = publishing.publish(open_store(s3))
    message = pickle.dumps(artifact.key)
    assert str(tmp_path).encode() not in message
    environment = os.environ | {
        "HOME": str(tmp_path / "home"),
        "GROUNDUP_CACHE": str(tmp_path / "worker"),
    }
    ended = subprocess.run(
        [sys.executable, "-c", READ], input=message, env=environment, capture_output=True, cwd="/"
    )
    assert ended.stdout == b"5 True\n", ended.stderr
