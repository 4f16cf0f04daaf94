"""Working in a foreign folder, e.g. a cloned repository, runs nothing of what is in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.flows.conftest import REPOSITORY, Groundup, free_port

pytestmark = pytest.mark.slow

# Prefect configures its logging from a file that a setting names. The file may name any function.
LOGGING = """
version: 1
filters:
  planted:
    (): os.system
    command: touch {ran}
handlers:
  console: {{class: logging.StreamHandler, filters: [planted]}}
root: {{handlers: [console], level: DEBUG}}
"""
SETTINGS = {
    ".env": "PREFECT_LOGGING_SETTINGS_PATH={config}\nPREFECT_LOGGING_CONFIG_PATH={config}\n",
    "prefect.toml": '[logging]\nconfig_path = "{config}"\n',
    "pyproject.toml": '[tool.prefect.logging]\nconfig_path = "{config}"\n',
    "profiles": "PREFECT_PROFILES_PATH={profiles}\n",
}
MODULES = [
    "json",
    "resource",
    "numpy",
    "pyarrow",
    "torch",
    "prefect",
    "stages",
    "flows",
    "multiprocessing",
    "sitecustomize",
    "usercustomize",
]


def planted(folder: Path, *settings: str) -> Path:
    """Fill `folder` with files that leave a trace if anything runs them; return the trace.

    settings: The files of settings, as in SETTINGS. Each makes Prefect run a function by itself.
    """
    ran, config, profiles = folder / "ran", folder / "logging.yaml", folder / "profiles.toml"
    config.write_text(LOGGING.format(ran=ran))
    profiles.write_text(
        'active = "p"\n[profiles.p]\n'
        f'PREFECT_LOGGING_CONFIG_PATH = "{config}"\nPREFECT_LOGGING_SETTINGS_PATH = "{config}"\n'
    )
    for setting in settings:
        name = ".env" if setting == "profiles" else setting
        with (folder / name).open("a") as file:
            file.write(SETTINGS[setting].format(config=config, profiles=profiles))
    for module in MODULES:
        (folder / f"{module}.py").write_text(f"open({str(ran)!r}, 'w').write(__name__)\n")
    return ran


@pytest.mark.parametrize("settings", SETTINGS)
def test_what_is_planted_would_run(settings: str, tmp_path: Path) -> None:
    ran = planted(tmp_path, settings)
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")
    }
    script = (
        "import sys; sys.path.pop(0); import prefect; "
        "from prefect.logging.configuration import setup_logging; setup_logging()"
    )
    subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=environment | {"PREFECT_HOME": str(tmp_path)},
        check=False,
        timeout=120,
    )
    assert ran.exists()


def test_no_file_of_the_folder_runs_with_a_stage_or_with_the_server(tmp_path: Path) -> None:
    folder = tmp_path / "cloned"
    folder.mkdir()
    ran = planted(folder, *SETTINGS)
    (folder / "pages.jsonl").write_text(
        json.dumps({"text": "Some text of a page, long enough to be one."}) + "\n"
    )
    groundup = Groundup(tmp_path / "home", free_port(), folder)
    sources = 'sources=[{kind: files, name: mine, paths: ["pages.jsonl"]}]'
    groundup.run("stage", "crawl", "--name", "x", "--set", sources)
    groundup.run("stage", "clean", "--name", "x")
    try:
        groundup.run("up")
    finally:
        groundup.run("down")
    assert not ran.exists(), ran.read_text()


def test_a_run_from_the_shell_takes_no_settings_of_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "cloned"
    folder.mkdir()
    ran = planted(folder, *SETTINGS)
    script = (
        "from flows.home import current_home\n"
        "from flows.prefect_host.server import running_server\n"
        "with running_server(current_home(), 'flows.build_llm'): pass"
    )
    groundup = Groundup(tmp_path / "home", free_port(), folder)
    groundup.set_up()
    environment = groundup.environment | {"PYTHONPATH": str(REPOSITORY)}
    subprocess.run(
        [sys.executable, "-P", "-c", script], cwd=folder, env=environment, check=True, timeout=300
    )
    assert not ran.exists(), ran.read_text()


IN_USE = """
import sys
from flows.home import current_home
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY as SETTING
from prefect.settings import get_current_settings, temporary_settings
def show():
    with temporary_settings({SETTING: None}):
        print(get_current_settings().client.custom_headers)
"""
USES = {
    "a run": "from flows.prefect_host.server import running_server\n"
    "with running_server(current_home(), 'flows.build_llm'):\n"
    + IN_USE.replace("\n", "\n    ")
    + "\n    show()",
    "a flow run of a worker": f"{IN_USE}\nfrom flows.working_folder import enter_folder\n"
    "enter_folder()\nshow()",
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_setting_that_is_changed_for_a_while_reads_no_file_of_the_folder(
    use: str, tmp_path: Path
) -> None:
    """Prefect builds its settings anew for that, in the folder in which it is then."""
    folder = tmp_path / "cloned"
    folder.mkdir()
    (folder / ".env").write_text('PREFECT_CLIENT_CUSTOM_HEADERS={"planted": "1"}\n')
    (folder / "prefect.toml").write_text('[client.custom_headers]\nplanted = "2"\n')
    groundup = Groundup(tmp_path / "home", free_port(), folder)
    settings = {"PYTHONPATH": str(REPOSITORY), "GROUNDUP_FOLDER": str(folder)}
    is_run = "running_server" in use
    done = subprocess.run(
        [sys.executable, "-P", "-c", f"from flows.home import current_home\n{use}"],
        cwd=folder if is_run else tmp_path,
        env=groundup.environment | settings,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert (done.returncode, done.stdout) == (0, "{}\n"), done.stderr
