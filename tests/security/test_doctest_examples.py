"""Examples on pages are programs: which of them are run, and what these can do."""

from __future__ import annotations

import os
import socket
import time

import pytest

from data_contracts import ConfigError
from stages import stage
from stages.collect_chats import sandbox
from stages.documentation_server import ORIGIN
from tests.golden import collect_chats as golden

confined = pytest.mark.skipif(bool(sandbox.missing()), reason=sandbox.missing())


def chats_of(run, publish, *, url, source="pydoc", **settings):
    """Return the chats of an API page with examples, from that address and source."""
    page = golden.document("Pydoc: module textwrap", golden.API) | {"url": url, "source": source}
    return run(
        "collect_chats",
        golden.SETTINGS | settings,
        training_documents=publish("training_documents", documents=[page]),
    )


def kept(chats):
    return [row for row in chats.read("conversations").to_pylist() if row["kind"] == "doctest"]


def refused(chats):
    return [row["reason"] for row in chats.read("rejects").to_pylist() if row["kind"] == "doctest"]


def error(*statements, seconds=5.0, megabytes=sandbox.MEGABYTES):
    outcome = sandbox.run_sessions([statements], seconds, megabytes=megabytes)[0]
    assert outcome.output is None, outcome.output
    return outcome.error


@pytest.fixture
def _nothing_runs(monkeypatch):
    def ran(*_, **__):
        pytest.fail("an example was run")

    monkeypatch.setattr("stages.collect_chats.doctests.run_sessions", ran)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/textwrap",
        "http://pydoc.localhost.example.org/textwrap",
        "http://pydoc.localhost:8080/x",
        "https://pydoc.localhost/x",
        "file:///tmp/pydoc.localhost/x",
    ],
)
@pytest.mark.usefixtures("_nothing_runs")
def test_examples_of_a_page_from_elsewhere_are_never_run_whatever_its_source_is_called(
    run, publish, url
):
    chats = chats_of(run, publish, url=url)
    assert (kept(chats), refused(chats)) == ([], ["foreign_examples"])


@confined
def test_examples_of_the_documentation_server_are_run_whatever_the_source_is_called(run, publish):
    chats = chats_of(run, publish, url=f"{ORIGIN}/textwrap.html", source="of-mine")
    assert len(kept(chats)) == 1
    assert refused(chats) == ["output_differs"]


@pytest.mark.parametrize("setting", ["seeds", "scope", "allow_origins"])
def test_no_web_source_can_have_an_address_of_the_documentation_server(setting):
    settings = {
        "kind": "web",
        "name": "pydoc",
        "seeds": ["https://example.org/"],
        setting: ["http://PYDOC.localhost:80/index.html"],
    }
    with pytest.raises(ConfigError, match="address of the built-in documentation server"):
        stage("crawl").config_class.parse({"sources": [settings]}, "crawl")


def test_no_name_of_a_source_can_be_given_trust():
    with pytest.raises(ConfigError, match=r"doctest\.sources is not a setting"):
        stage("collect_chats").config_class.parse(
            {"doctest": {"sources": ["stranger"]}}, "collect_chats"
        )


@pytest.fixture
def without_namespaces(tmp_path, monkeypatch):
    """A system whose `unshare` fails as in a container without the permission."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "unshare"
    program.write_text(
        "#!/bin/sh\necho 'unshare: unshare failed: Operation not permitted' >&2\nexit 1\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    sandbox.missing.cache_clear()
    yield
    sandbox.missing.cache_clear()


@pytest.mark.usefixtures("without_namespaces")
def test_where_there_are_no_namespaces_no_example_is_run_and_that_is_said(run, publish):
    chats = chats_of(run, publish, url=f"{ORIGIN}/textwrap.html")
    assert (kept(chats), refused(chats)) == ([], ["not_run", "not_run"])
    (note,) = chats.manifest.facts["notes"]
    assert note.startswith(
        "examples of pages are not run, and give no chats: this system gives you no namespaces"
    )
    assert "Operation not permitted" in note
    outcome = sandbox.run_sessions([["1\n"]], 5)[0]
    assert outcome.not_run
    assert outcome.output is None


@confined
def test_chats_made_without_running_examples_are_not_taken_for_those_made_with(
    run, publish, request
):
    page = {"url": f"{ORIGIN}/textwrap.html"}
    with_examples = chats_of(run, publish, **page)
    request.getfixturevalue("without_namespaces")
    assert chats_of(run, publish, **page).id != with_examples.id


@pytest.fixture
def program(tmp_path, monkeypatch):
    """program(old, new) changes the sandbox's program, to test one protection without another."""

    def change(old: str, new: str) -> None:
        text = sandbox.PROGRAM.read_text("utf-8")
        assert old in text
        (tmp_path / "sandboxed.py").write_text(text.replace(old, new), "utf-8")
        monkeypatch.setattr(sandbox, "PROGRAM", tmp_path / "sandboxed.py")
        sandbox.missing.cache_clear()

    yield change
    sandbox.missing.cache_clear()


@confined
def test_a_kernel_without_landlock_runs_nothing(program):
    program(
        "CREATE_RULESET = 444", "CREATE_RULESET = 9999"
    )  # a kernel without the call gives the same error
    assert sandbox.missing().startswith("the kernel has no Landlock")
    assert sandbox.run_sessions([["1\n"]], 5)[0].not_run


WAYS_TO_READ = [
    "open({file!r}).read()\n",
    "__import__('io').FileIO({file!r}).read()\n",
    "print(*__import__('os').scandir({folder!r}))\n",
]


@confined
@pytest.mark.parametrize("way", WAYS_TO_READ)
@pytest.mark.parametrize("packages", [False, True])
def test_an_example_reads_no_file_of_the_user(tmp_path, way, packages):
    (tmp_path / "id_rsa").write_text("a secret key")
    statement = way.format(file=str(tmp_path / "id_rsa"), folder=str(tmp_path))
    assert "Permission denied" in sandbox.run_sessions([[statement]], 5, packages)[0].error


@confined
def test_without_audit_events_the_kernel_still_refuses_writing_programs_and_the_network(
    program, tmp_path
):
    program("sys.addaudithook(refuse)", "pass")
    victim = tmp_path / "victim"
    victim.write_text("here")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        address = listener.getsockname()
        send = f"socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', {address})\n"
        assert "Network is unreachable" in error("import socket\n", send)
    for statement in (
        f"open({str(victim)!r}, 'w')\n",
        f"os.remove({str(victim)!r})\n",
        "os.execv('/bin/true', ['true'])\n",
    ):
        assert "Permission" in error("import os\n", statement)
    assert victim.read_text() == "here"


@confined
def test_without_audit_events_a_process_that_an_example_leaves_behind_ends_with_it(program):
    program("limit(resource.RLIMIT_NPROC, 0)", "pass")
    program("sys.addaudithook(refuse)", "pass")
    leave = [
        "import os, time\n",
        "if os.fork() == 0:\n    os.setsid()\n    time.sleep(600)\n\n",
        "1\n",
    ]
    look = (
        "def lives(n):\n    try:\n        return os.kill(n, 0) is None\n"
        "    except ProcessLookupError:\n        return False\n\n"
    )
    count = [
        "import os\n",
        look,
        "[n for n in range(2, os.getpid() + 100) if lives(n)] == [os.getpid()]\n",
    ]
    left, after = sandbox.run_sessions([leave, count], 1)
    assert left.error == "ran longer than 1 seconds"
    assert after.output == "True\n"


@confined
def test_memory_and_time_of_an_example_are_bounded():
    assert "MemoryError" in error("x = bytearray(200 << 20)\n", megabytes=128)
    before = time.monotonic()
    assert error("while True: pass\n\n", seconds=0.2) == "ran longer than 0.2 seconds"
    assert error("x = 10 ** 10 ** 10\n", seconds=0.2) in (
        "ran longer than 0.2 seconds",
        "MemoryError: ",
    )
    assert time.monotonic() - before < 60


@confined
def test_an_example_sees_neither_home_nor_environment_nor_other_processes(monkeypatch):
    monkeypatch.setenv("GROUNDUP_SECRET", "seen")
    home, environment, others = sandbox.run_sessions(
        [
            ["import os\n", f"os.listdir({os.path.expanduser('~')!r})\n"],
            ["import os\n", "'GROUNDUP_SECRET' in os.environ or 'HOME' in os.environ\n"],
            ["import os\n", "sorted(os.listdir('/proc'))\n"],
        ],
        5,
    )
    assert "PermissionError" in home.error
    assert environment.output == "False\n"
    assert "PermissionError" in others.error
    assert "PermissionError" in error(f"open('/proc/{os.getpid()}/environ', 'rb').read()\n")
