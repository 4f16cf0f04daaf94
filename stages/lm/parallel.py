"""Training on more than one device: the stage starts torchrun itself, weights are sharded with FSDP2, safe points fit any number of ranks.

With `compute.devices` above 1 the stage writes a job file and runs `torchrun --standalone -m stages.lm.parallel JOB`; each rank then
runs the whole stage function, and what is written is written by rank 0. All ranks are on the machine that the stage was started on.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

import data_contracts
import stages
from data_contracts import Artifact, Draft, GroundupError
from stages.child import end_with_parent, kill_with_descendants
from stages.interruption import stop_requested
from stages.lm import precision
from stages.lm.config import Compute
from stages.lm.model import LanguageModel
from stages.report import Facts, Report

STOP = "stop"  # a file in the draft's scratch folder: the starting process wishes the ranks to stop
STARTER = "GROUNDUP_STARTER"  # its process id: ranks whose starter was killed stop too
MESSAGE = "groundup:"  # how rank 0 begins the lines that carry its report
PATIENCE = timedelta(days=1)  # ranks wait for what rank 0 does alone (token cache, answers); one that dies is seen by torchrun at once


T = TypeVar("T")


def ranks() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


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


def place(model: LanguageModel, compute: Compute) -> LanguageModel:
    """Put the model on this rank's device and, with several ranks, shard it: every block by itself, then the rest.

    Parameters stay float32; they are gathered in the matrix products' precision and their gradients are summed in float32.
    compute.replicas above 1 shards within a replica and averages between replicas (HSDP).
    """
    device = precision.device_of()
    if ranks() == 1:
        return model.to(device)
    shape, names = (ranks(),), ("shard",)
    if compute.replicas > 1:
        shape, names = (compute.replicas, ranks() // compute.replicas), ("replicate", "shard")  # type: ignore[assignment]
    mesh = init_device_mesh(device.type, shape, mesh_dim_names=names)
    dtype = precision.matmul_dtype(compute, device)
    policy = MixedPrecisionPolicy(
        param_dtype=dtype if dtype is torch.bfloat16 else None, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    for block in model.model.layers:  # each moves to the device by itself: the whole model never is there
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    return model


def full_weights(model: LanguageModel) -> dict[str, Tensor]:
    """state_dict with whole tensors on the CPU of rank 0 (other ranks get an empty dict). All ranks must call it."""
    weights = {}
    for name, tensor in model.state_dict().items():
        whole = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
        if rank() == 0:
            weights[name] = whole.detach().cpu()
    return weights


def set_last_micro_batch(model: LanguageModel, last: bool) -> None:
    """Replicas exchange gradients after the last micro-batch of a step only; shards after each, or every rank would hold all gradients."""
    if isinstance(model, FSDPModule):
        model.set_requires_all_reduce(last)


def forget_gathered(model: LanguageModel) -> None:
    """Call after passes without gradients that come before the first training step.

    FSDP2 keeps the outer weights gathered after such a pass and would go on using them, stale, all through training.
    """
    if isinstance(model, FSDPModule):
        model.reshard()


def gradient_factor() -> float:
    """What gradients must be multiplied by to be sums over all ranks: FSDP averages them."""
    return float(ranks())


def summed(values: Mapping[str, float], device: torch.device) -> dict[str, float]:
    """Each value summed over ranks."""
    if ranks() == 1:
        return dict(values)
    total = torch.tensor(list(values.values()), dtype=torch.float64, device=device)
    dist.all_reduce(total)
    return dict(zip(values, total.tolist(), strict=True))


def gathered(value: T) -> list[T]:
    """Each rank's value, in the order of ranks."""
    values = [value] * ranks()
    if ranks() > 1:
        dist.all_gather_object(values, value)
    return values


def told_by_rank_0(find: Callable[[], T]) -> T:
    """What rank 0 finds, on all ranks."""
    found = [find() if rank() == 0 else None]
    if ranks() > 1:
        dist.broadcast_object_list(found, src=0)
    return found[0]  # type: ignore[return-value]


def barrier() -> None:
    if ranks() > 1:
        dist.barrier()


@contextmanager
def rank_0_first() -> Iterator[None]:
    """Rank 0 runs the body before the others, e.g. to fill a cache that they then find.

    If the body fails on rank 0 the others are not let in, to what it left half done: rank 0 ends, and torchrun ends the rest.
    """
    if rank() > 0:
        barrier()
    yield
    if rank() == 0:
        barrier()


@contextmanager
def stop_wished(scratch: Path, device: torch.device) -> Iterator[Callable[[], bool]]:
    """Like stages.interruption.stop_requested, but all ranks agree on it. All ranks must ask equally often."""
    starter = int(os.environ.get(STARTER, 0)) if ranks() > 1 else 0
    with stop_requested() as stop:
        yield lambda: summed({"stop": stop() or (starter and ((scratch / STOP).exists() or _is_gone(starter)))}, device)["stop"] > 0


def write_tensors(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Each rank writes its shards as safetensors, without pickle. All ranks must call it."""
    writer = dcp.HuggingFaceStorageWriter(str(folder), save_distributed=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that there is no process group
        dcp.save(dict(tensors), storage_writer=writer, no_dist=ranks() == 1)


def read_tensors(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Fill `tensors` from what any number of ranks wrote. Check the digests of the files first."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        dcp.load(dict(tensors), storage_reader=dcp.HuggingFaceStorageReader(str(folder)), no_dist=ranks() == 1)


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


def _torchrun(stage: str, config: Any, inputs: Mapping[str, Artifact], out: Draft, report: Report) -> Facts:
    """Run the stage on config.compute.devices ranks; give rank 0's facts or raise rank 0's error."""
    job, outcome, stop_file = out.scratch / "job.json", out.scratch / "outcome.json", out.scratch / STOP
    outcome.unlink(missing_ok=True)
    stop_file.unlink(missing_ok=True)
    paths = {name: str(artifact.path) for name, artifact in inputs.items()}
    values = {"stage": stage, "config": config.model_dump(mode="json"), "inputs": paths, "noun": out.noun, "place": str(out.place)}
    job.write_text(json.dumps(values), "utf-8")
    command = [sys.executable, "-P", "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={config.compute.devices}",
               f"--log-dir={out.scratch}", "-m", "stages.lm.parallel", str(job)]  # fmt: skip
    search = os.pathsep.join(filter(None, [str(Path(stages.__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {
        STARTER: str(os.getpid()),
        "PYTHONPATH": search,
        "PYTHONSAFEPATH": "1",  # a random.py in the person's current folder is not what torch means by random
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
    }
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
        except BaseException:  # a second signal, for instance: ranks in sessions of their own would stay
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
    dist.init_process_group("nccl" if cuda else "gloo", timeout=PATIENCE, device_id=device if cuda else None)
    outcome = Path(values["place"]) / "scratch" / "outcome.json"
    inputs = {name: Artifact.at(Path(path)) for name, path in values["inputs"].items()}
    try:
        facts = row.function(
            config, **inputs, out=Draft(values["noun"], Path(values["place"])), report=_Messages() if rank() == 0 else Report()
        )
        barrier()
    except GroundupError as error:
        if not outcome.exists():  # the first error is the one to tell: others follow from it
            _write(outcome, {"error": type(error).__name__, "arguments": [error.what, error.why, error.fix]})
        sys.stdout.flush()
        os._exit(1)  # torchrun then stops the ranks that wait for this one; a tidy end might itself wait for them
    if rank() == 0:
        _write(outcome, {"facts": asdict(facts)})
    dist.destroy_process_group()


def _write(outcome: Path, told: dict[str, Any]) -> None:
    """At once: torchrun may stop this rank at any moment, for the fault of another."""
    partial = outcome.with_name(f"{outcome.name}.{rank()}")
    partial.write_text(json.dumps(told), "utf-8")
    partial.replace(outcome)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
