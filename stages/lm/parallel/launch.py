"""A training stage starts torchrun itself.

With `compute.devices` above 1 the stage writes a job file and runs `torchrun --standalone -m stages.lm.parallel.launch JOB`; each rank then
runs the whole stage function, and what is written is written by rank 0. All ranks are on the machine that the stage was started on.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

import data_contracts
import stages
from data_contracts import Artifact, Draft, GroundupError
from stages.execution.child import end_with_parent, kill_with_descendants
from stages.execution.interruption import stop_requested
from stages.lm import precision
from stages.lm.parallel.collectives import all_reduce, barrier, is_main_process, rank, world_size
from stages.report import Facts, Report

STOP = "stop"  # a file in the draft's scratch folder: the starting process asks the ranks to stop
STARTER = "GROUNDUP_STARTER"  # its process id: ranks whose starter was killed stop too
MESSAGE = "groundup:"  # how rank 0 begins the lines that carry its report
PATIENCE = timedelta(
    days=1
)  # ranks wait for what rank 0 does alone (token cache, answers); one that dies is seen by torchrun at once


def distributed(stage: str) -> Callable[[Callable[..., Facts]], Callable[..., Facts]]:
    """Decorator of a stage's `run`: with compute.devices above 1 it runs on that many torchrun ranks, else here."""

    def decorate(run: Callable[..., Facts]) -> Callable[..., Facts]:
        @functools.wraps(run)
        def go(config: Any, *, out: Draft, report: Report, **inputs: Artifact) -> Facts:
            if config.compute.devices == 1 or dist.is_initialized():
                return run(config, out=out, report=report, **inputs)
            return _torchrun(stage, config, inputs, out, report)

        return go

    return decorate


@contextmanager
def stop_requested_on_any_rank(scratch: Path, device: torch.device) -> Iterator[Callable[[], bool]]:
    """Like stages.execution.interruption.stop_requested, but all ranks agree on it. All ranks must ask equally often."""
    starter = int(os.environ.get(STARTER, 0)) if world_size() > 1 else 0
    with stop_requested() as stop:
        yield (
            lambda: (
                all_reduce(
                    {
                        "stop": stop()
                        or (starter and ((scratch / STOP).exists() or _is_gone(starter)))
                    },
                    device,
                )["stop"]
                > 0
            )
        )


def _is_gone(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return False


class _Messages(Report):
    """Rank 0's report, as lines on standard output."""

    def progress(self, done: float, total: float | None, unit: str) -> None:
        self._say("progress", done=done, total=total, unit=unit)

    def metrics(self, step: int, **values: float | None) -> None:
        self._say("metrics", step=step, **values)

    def note(self, text: str) -> None:
        self._say("note", text=text)

    def _say(self, kind: str, **values: Any) -> None:
        print(MESSAGE, json.dumps([kind, values]), flush=True)


def _torchrun(
    stage: str, config: Any, inputs: Mapping[str, Artifact], out: Draft, report: Report
) -> Facts:
    """Run the stage on config.compute.devices ranks; give rank 0's facts or raise rank 0's error."""
    job, outcome, stop_file = (
        out.scratch / "job.json",
        out.scratch / "outcome.json",
        out.scratch / STOP,
    )
    outcome.unlink(missing_ok=True)
    stop_file.unlink(missing_ok=True)
    paths = {name: str(artifact.path) for name, artifact in inputs.items()}
    values = {
        "stage": stage,
        "config": config.model_dump(mode="json"),
        "inputs": paths,
        "artifact_type": out.artifact_type,
        "place": str(out.folder),
    }
    job.write_text(json.dumps(values), "utf-8")
    command = [sys.executable, "-P", "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={config.compute.devices}",
               f"--log-dir={out.scratch}", "-m", "stages.lm.parallel.launch", str(job)]  # fmt: skip
    search = os.pathsep.join(
        filter(None, [str(Path(stages.__file__).parents[1]), os.environ.get("PYTHONPATH")])
    )
    environment = (
        os.environ
        | {
            STARTER: str(os.getpid()),
            "PYTHONPATH": search,
            "PYTHONSAFEPATH": "1",  # a random.py in the person's current folder is not what torch means by random
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        }
    )
    other: list[str] = []
    # its own session: Ctrl-C reaches this process alone, which then asks the ranks to stop at a safe point
    with stop_requested(then=stop_file.touch), subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:  # fmt: skip
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if line.startswith(MESSAGE):
                    kind, told = json.loads(line.removeprefix(MESSAGE))
                    getattr(report, kind)(**told)
                else:
                    other = [*other[-40:], line]
        except (
            BaseException
        ):  # a second signal, for instance: ranks in sessions of their own would stay
            kill_with_descendants(process.pid)
            raise
    if not outcome.exists():
        raise GroundupError(
            f"stage {stage} on {config.compute.devices} ranks",
            f"torchrun ended with code {process.returncode} and without a result:\n{''.join(other)}",
            "run it again: it continues from the last safe point; set compute.devices to what the machine has",
        )
    told = json.loads(outcome.read_text("utf-8"))
    if "error" in told:
        raise getattr(data_contracts, told["error"], GroundupError)(*told["arguments"])
    return Facts(**told["facts"])


def main(job: Path) -> None:
    """One rank of a job that `_torchrun` wrote. A rank that fails leaves its error in the outcome file and ends with status 1."""
    end_with_parent()
    values = json.loads(job.read_text("utf-8"))
    row = stages.stage(values["stage"])
    config = row.config_class.parse(values["config"], row.name)
    device = precision.device_of()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    cuda = device.type == "cuda"
    dist.init_process_group(
        "nccl" if cuda else "gloo", timeout=PATIENCE, device_id=device if cuda else None
    )
    outcome = Path(values["place"]) / "scratch" / "outcome.json"
    inputs = {name: Artifact.at(Path(path)) for name, path in values["inputs"].items()}
    try:
        facts = row.function(
            config,
            **inputs,
            out=Draft(values["artifact_type"], Path(values["place"])),
            report=_Messages() if is_main_process() else Report(),
        )
        barrier()
    except GroundupError as error:
        if not outcome.exists():  # the first error is the one to tell: others follow from it
            _write(
                outcome,
                {"error": type(error).__name__, "arguments": [error.what, error.why, error.fix]},
            )
        sys.stdout.flush()
        os._exit(
            1
        )  # torchrun then stops the ranks that wait for this one; a tidy end might itself wait for them
    if is_main_process():
        _write(outcome, {"facts": asdict(facts)})
    dist.destroy_process_group()


def _write(outcome: Path, told: dict[str, Any]) -> None:
    """At once: torchrun may stop this rank at any moment, for the fault of another."""
    partial = outcome.with_name(f"{outcome.name}.{rank()}")
    partial.write_text(json.dumps(told), "utf-8")
    partial.replace(outcome)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
