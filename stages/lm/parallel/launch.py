"""A training stage starts torchrun itself.

With `compute.devices` above 1 the stage writes a job file and runs
`torchrun --standalone -m stages.lm.parallel.launch JOB`. Each rank then runs the whole stage
function; only rank 0 writes results. All ranks run on the machine that the stage was started on.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import IO, Any

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

STOP = "stop"  # file in the draft's scratch folder by which the starter asks the ranks to stop
STARTER = "GROUNDUP_STARTER"  # process id of the starter: if it is gone, the ranks stop too
MESSAGE = "groundup:"  # prefix of the lines that carry rank 0's report
OUTCOME = "outcome.json"
MAX_LINES_SHOWN = 41  # of the ranks' other output, if they end without a result
# For what rank 0 does alone, such as the token cache or sample answers. torchrun sees at once when
# a rank dies.
TIMEOUT = timedelta(days=1)


def distributed(stage: str) -> Callable[[Callable[..., Facts]], Callable[..., Facts]]:
    """Decorate a stage's `run` so that it runs on `compute.devices` torchrun ranks.

    With one device it runs in this process.

    Args:
        stage: Name of the stage.
    """

    def decorate(run: Callable[..., Facts]) -> Callable[..., Facts]:
        @functools.wraps(run)
        def run_on_ranks(config: Any, *, out: Draft, report: Report, **inputs: Artifact) -> Facts:
            if config.compute.devices == 1 or dist.is_initialized():
                return run(config, out=out, report=report, **inputs)
            return _torchrun(stage, config, inputs, out, report)

        return run_on_ranks

    return decorate


@contextmanager
def stop_requested_on_any_rank(scratch: Path, device: torch.device) -> Iterator[Callable[[], bool]]:
    """Like stages.execution.interruption.stop_requested, with one answer for all ranks.

    All ranks must call the function that this context gives equally often.

    Args:
        scratch: The draft's scratch folder.
        device: Where the process group exchanges tensors.
    """
    starter = int(os.environ.get(STARTER, 0)) if world_size() > 1 else 0
    with stop_requested() as is_signalled:

        def is_stop_requested() -> bool:
            is_asked = is_signalled()
            if starter and not is_asked:
                is_asked = (scratch / STOP).exists() or _is_gone(starter)
            return all_reduce({"stop": is_asked}, device)["stop"] > 0

        yield is_stop_requested


def _is_gone(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return False


class _PrintedReport(Report):
    """Rank 0's report, printed as lines on standard output."""

    def progress(self, done: float, total: float | None, unit: str) -> None:
        self._print("progress", done=done, total=total, unit=unit)

    def metrics(self, step: int, **values: float | None) -> None:
        self._print("metrics", step=step, **values)

    def note(self, text: str) -> None:
        self._print("note", text=text)

    def _print(self, method: str, **values: Any) -> None:
        print(MESSAGE, json.dumps([method, values]), flush=True)


def _torchrun(
    stage: str, config: Any, inputs: Mapping[str, Artifact], out: Draft, report: Report
) -> Facts:
    """Run the stage on `config.compute.devices` ranks. Returns or raises what rank 0 does."""
    job = out.scratch / "job.json"
    outcome_file = out.scratch / OUTCOME
    stop_file = out.scratch / STOP
    outcome_file.unlink(missing_ok=True)
    stop_file.unlink(missing_ok=True)
    values = {
        "stage": stage,
        "config": config.model_dump(mode="json"),
        "inputs": {name: str(artifact.path) for name, artifact in inputs.items()},
        "artifact_type": out.artifact_type,
        "draft": str(out.folder),
    }
    job.write_text(json.dumps(values), "utf-8")
    with (
        stop_requested(then=stop_file.touch),
        subprocess.Popen(
            _command(job, out.scratch, config.compute.devices),
            env=_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # Ctrl-C then reaches this process alone, which asks the ranks to stop after they have
            # written a resume checkpoint.
            start_new_session=True,
        ) as process,
    ):
        assert process.stdout is not None
        try:
            other_lines = _forward(process.stdout, report)
        except BaseException:  # such as a second signal; the ranks' own sessions would survive it
            kill_with_descendants(process.pid)
            raise
    if not outcome_file.exists():
        output = "".join(other_lines)
        raise GroundupError(
            f"stage {stage} on {config.compute.devices} ranks",
            f"torchrun ended with code {process.returncode} and without a result:\n{output}",
            "run it again: it continues from the last resume checkpoint; "
            "set compute.devices to what the machine has",
        )
    outcome = json.loads(outcome_file.read_text("utf-8"))
    if "error" in outcome:
        error_class = getattr(data_contracts, outcome["error"], GroundupError)
        raise error_class(*outcome["arguments"])
    return Facts(**outcome["facts"])


def _command(job: Path, logs: Path, ranks: int) -> list[str]:
    return [
        *(sys.executable, "-P", "-m", "torch.distributed.run"),
        "--standalone",
        f"--nproc-per-node={ranks}",
        f"--log-dir={logs}",
        *("-m", "stages.lm.parallel.launch", str(job)),
    ]


def _environment() -> dict[str, str]:
    search = [str(Path(stages.__file__).parents[1])]
    if os.environ.get("PYTHONPATH"):
        search.append(os.environ["PYTHONPATH"])
    return {
        **os.environ,
        STARTER: str(os.getpid()),
        "PYTHONPATH": os.pathsep.join(search),
        # Otherwise torch would import, say, a random.py from the user's current folder.
        "PYTHONSAFEPATH": "1",
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
    }


def _forward(lines: IO[str], report: Report) -> list[str]:
    """Pass rank 0's report on. Returns the last of the other lines."""
    other: deque[str] = deque(maxlen=MAX_LINES_SHOWN)
    for line in lines:
        if line.startswith(MESSAGE):
            method, values = json.loads(line.removeprefix(MESSAGE))
            getattr(report, method)(**values)
        else:
            other.append(line)
    return list(other)


def main(job: Path) -> None:
    """Run one rank of a job that `_torchrun` wrote.

    A rank that fails leaves its error in the outcome file and ends with status 1.

    Args:
        job: The file of the job.
    """
    end_with_parent()
    values = json.loads(job.read_text("utf-8"))
    row = stages.stage(values["stage"])
    config = row.config_class.parse(values["config"], row.name)
    _init_process_group()
    draft = Path(values["draft"])
    outcome_file = draft / "scratch" / OUTCOME
    try:
        facts = row.function(
            config,
            **{name: Artifact.at(Path(path)) for name, path in values["inputs"].items()},
            out=Draft.in_folder(values["artifact_type"], draft),
            report=_PrintedReport() if is_main_process() else Report(),
        )
        barrier()
    except GroundupError as error:
        if not outcome_file.exists():  # later errors follow from the first one
            arguments = [error.what, error.why, error.fix]
            _write(outcome_file, {"error": type(error).__name__, "arguments": arguments})
        sys.stdout.flush()
        # torchrun then stops the ranks that wait for this one. An orderly exit might itself wait
        # for them.
        os._exit(1)
    if is_main_process():
        _write(outcome_file, {"facts": asdict(facts)})
    dist.destroy_process_group()


def _init_process_group() -> None:
    device = precision.device_of()
    if device.type == "cuda":
        torch.cuda.set_device(device)
        dist.init_process_group("nccl", timeout=TIMEOUT, device_id=device)
    else:
        dist.init_process_group("gloo", timeout=TIMEOUT)


def _write(outcome_file: Path, outcome: dict[str, Any]) -> None:
    """Write the whole file at once: torchrun may stop this rank at any moment."""
    partial = outcome_file.with_name(f"{outcome_file.name}.{rank()}")
    partial.write_text(json.dumps(outcome), "utf-8")
    partial.replace(outcome_file)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
