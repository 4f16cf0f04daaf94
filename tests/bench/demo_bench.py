"""The demo from an empty home, as a user runs it: time, memory, orchestration, scores, and the rerun with nothing changed.

    python -m tests.bench.demo_bench [--recipe tiny] [--home FOLDER, which is kept]

One JSON line. `peak_gb` is the greatest sum of what all processes of the run hold at one time (proportional set size, read every
half second); `orchestration_share` is the share of the time in which no stage worked, the start of the server included;
`below_xz` is how far the base model's bits per byte on held-out pages lie below those of `xz -9e` on the same bytes.
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
from data_contracts import Artifact, open_store

AIMS = {"seconds": 600, "peak_gb": 4.0, "rerun_seconds": 15, "orchestration_share": 0.02, "below_xz": 0.2}


def held(process: psutil.Process) -> int:
    """Bytes of memory of a process and its descendants; pages that several share are counted once."""
    total = 0
    for member in [process, *process.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            info = member.memory_full_info()
            total += getattr(info, "pss", info.uss)
    return total


def groundup(home: Path, *arguments: str) -> tuple[dict[str, Any], float, float]:
    """What one command said as JSON, its seconds, and its peak in gigabytes."""
    started, peak = time.perf_counter(), 0
    environment = os.environ | {"GROUNDUP_HOME": str(home)}
    with subprocess.Popen(
        [str(Path(sys.executable).with_name("groundup")), *arguments, "--json"], env=environment, stdout=subprocess.PIPE
    ) as run:
        watched = psutil.Process(run.pid)
        while run.poll() is None:
            with suppress(psutil.NoSuchProcess):
                peak = max(peak, held(watched))
            time.sleep(0.5)
        assert run.stdout is not None
        told = run.stdout.read()
    if run.returncode:
        raise SystemExit(f"groundup {' '.join(arguments)} ended with {run.returncode}")
    return json.loads(told), time.perf_counter() - started, peak / 1e9


def seconds_of(artifact: Artifact) -> int:
    started, finished = (datetime.fromisoformat(text) for text in (artifact.manifest.started, artifact.manifest.finished))
    return round((finished - started).total_seconds())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="tiny")
    parser.add_argument("--home")
    given = parser.parse_args()
    recipe = given.recipe
    with nullcontext(given.home) if given.home else tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "prefect").mkdir(parents=True, exist_ok=True)
        prefect = [str(Path(sys.executable).with_name("prefect")), "server", "database", "upgrade", "--yes"]  # as set-up does
        subprocess.run(prefect, env=os.environ | {"PREFECT_HOME": str(home / "prefect")}, check=True, stdout=subprocess.DEVNULL)
        first, seconds, peak = groundup(home, "run", "--recipe", recipe, "--name", "demo")
        again, rerun_seconds, _ = groundup(home, "run", "--recipe", recipe, "--name", "demo")
        store = open_store(str(home / "store"))
        scores = {(row["task"], row["metric"]): row for row in store.open(*store.resolve("demo/scores")).read("scores").to_pylist()}
        pages, items = scores["heldout_pages_base", "bits_per_byte"], scores["all_items", "acc"]
        figures = store.open(*store.resolve("demo/sft_checkpoint")).manifest.facts["figures"]
        took = {stage.name: seconds_of(store.open(*store.resolve(f"demo/{stage.role}"), verify=False)) for stage in stages.STAGES}
        print(json.dumps({
            "bench": "demo", "recipe": recipe, "seconds": round(seconds), "peak_gb": round(peak, 2),
            "rerun_seconds": round(rerun_seconds, 1), "rerun_stages": again["stages_run"],
            "orchestration_share": first["orchestration_share"], "stage_seconds": took,
            "bits_per_byte": round(pages["value"], 3), "xz": round(pages["baseline"], 3),
            "below_xz": round(1 - pages["value"] / pages["baseline"], 3),
            "after_dpo": round(scores["heldout_pages", "bits_per_byte"]["value"], 3),
            "items_right": round(items["value"], 3), "items_stderr": round(items["stderr"], 3), "chance": items["baseline"],
            "answers_that_stop": figures.get("stops"), "aims": AIMS,
        }))  # fmt: skip


if __name__ == "__main__":
    main()
