"""The demo from an empty home, as a user runs it: time, memory, orchestration, scores, and again.

    python -m tests.bench.demo_bench [--recipe tiny] [--home FOLDER, which is kept]

One JSON line. `peak_gb` is the greatest sum of what all processes of the run hold at one time
(proportional set size, read every half second); `orchestration_share` is the share of the time in
which no stage worked, the start of the server included; `rerun_…` is the same command once more,
with nothing changed; `below_xz` is how far the base model's bits per byte on held-out pages lie
below those of `xz -9e` on the same bytes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

import stages
from data_contracts import Artifact, Store, open_store
from tests.bench import machine

AIMS = {
    "seconds": 600,
    "peak_gb": 4.0,
    "rerun_seconds": 15,
    "orchestration_share": 0.02,
    "below_xz": 0.2,
}
NAME = "demo"
START_A_SERVER = """
from flows.home import current_home
from flows.prefect_host.server import running_server

with running_server(current_home(), "prefect"):
    pass
"""


def held(process: psutil.Process) -> int:
    """Bytes of memory of a process and its descendants; what several share is counted once."""
    total = 0
    for member in [process, *process.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            info = member.memory_full_info()
            total += getattr(info, "pss", info.uss)
    return total


def program(name: str) -> str:
    """A program of the virtual environment that runs this."""
    return str(Path(sys.executable).with_name(name))


def groundup(home: Path, *arguments: str) -> tuple[dict[str, Any], float, float]:
    """What one command printed as JSON, its seconds, and its peak in gigabytes.

    Raises:
        RuntimeError: The command failed.
    """
    command = [program("groundup"), *arguments, "--json"]
    # digests of earlier runs, which a new user would not have, are left aside
    environment = os.environ | {"GROUNDUP_HOME": str(home), "GROUNDUP_CACHE": str(home / "cache")}
    started, peak = time.perf_counter(), 0
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as run:
        watched = psutil.Process(run.pid)
        while run.poll() is None:
            with suppress(psutil.NoSuchProcess):
                peak = max(peak, held(watched))
            time.sleep(0.5)
        seconds = time.perf_counter() - started
        assert run.stdout is not None
        printed = run.stdout.read()
    if run.returncode:
        raise RuntimeError(f"groundup {' '.join(arguments)} ended with {run.returncode}")
    return json.loads(printed), seconds, peak / 1e9


def set_up(home: Path) -> None:
    """Start a server once, as `make setup` does: that records the home and makes the database."""
    command = [sys.executable, "-c", START_A_SERVER]
    environment = os.environ | {"GROUNDUP_HOME": str(home)}
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)


def seconds_of(artifact: Artifact) -> int:
    """How long its stage worked."""
    manifest = artifact.manifest
    started, finished = map(datetime.fromisoformat, (manifest.started, manifest.finished))
    return round((finished - started).total_seconds())


def results(store: Store) -> dict[str, Any]:
    """What the run made: scores, and the time of each stage."""
    table = store.open(*store.resolve(f"{NAME}/scores")).read("scores").to_pylist()
    scores = {(row["task"], row["metric"]): row for row in table}
    pages, items = scores["heldout_pages_base", "bits_per_byte"], scores["all_items", "acc"]
    sft = store.open(*store.resolve(f"{NAME}/sft_checkpoint"))
    took: dict[str, int] = {}
    for stage in stages.STAGES:
        artifact = store.open(*store.resolve(f"{NAME}/{stage.output}"), verify=False)
        took[stage.name] = seconds_of(artifact)
    return {
        "stage_seconds": took,
        "bits_per_byte": pages["value"],
        "xz": pages["baseline"],
        "below_xz": 1 - pages["value"] / pages["baseline"],
        "after_dpo": scores["heldout_pages", "bits_per_byte"]["value"],
        "items_right": items["value"],
        "items_stderr": items["stderr"],
        "chance": items["baseline"],
        "answers_that_stop": sft.manifest.facts["figures"].get("stops"),
    }


def main(arguments: list[str] | None = None) -> None:
    """Run the recipe twice and print one line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="tiny")
    parser.add_argument("--home")
    given = parser.parse_args(arguments)
    with nullcontext(given.home) if given.home else tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        set_up(home)
        run = ("run", "--recipe", given.recipe, "--name", NAME)
        first, seconds, peak = groundup(home, *run)
        again, rerun_seconds, _ = groundup(home, *run)
        figures = {
            "bench": "demo",
            "recipe": given.recipe,
            "seconds": seconds,
            "peak_gb": peak,
            "rerun_seconds": rerun_seconds,
            "rerun_stages": again["stages_run"],
            "orchestration_share": first["orchestration_share"],
        }
        machine.report(figures | results(open_store(str(home / "store"))) | {"aims": AIMS})


if __name__ == "__main__":
    main()
