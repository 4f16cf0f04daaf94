"""The GPU check is ready: its small form passes on a CPU, with no more packages than it may use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import pytest
import torch
from packaging.requirements import Requirement

from tests.gpu import check
from tests.gpu.check import CHECKS
from tests.gpu.machine import CheckError, Figures, Machine, bfloat16_peak
from tests.gpu.report import Check, attempt

REPOSITORY = Path(__file__).parents[2]
IMAGE = ("torch", "triton", "transformers", "tokenizers", "pyarrow", "safetensors")
Command = Callable[..., subprocess.CompletedProcess[str]]

# What docs/benchmarks.md wants of every speed check; None for what a CPU does not have.
SPEED = {
    "parameters",
    "gflop_per_token",
    "tokens_per_step",
    "steps",
    "ratio",
    "optimizer_tflop_per_step",
    *(
        f"{side}_{figure}"
        for side in ("ours", "transformers")
        for figure in ("tokens_per_second", "mfu", "peak_gb", "first_loss", "last_loss")
    ),
}


def with_requirements(names: list[str]) -> dict[str, Distribution]:
    """These packages and all that they need, without extras, by name; those that are installed."""
    found: dict[str, Distribution] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop().lower().replace("_", "-")
        if name in found:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:  # triton, on a machine without a GPU
            continue
        needed = [Requirement(line) for line in found[name].requires or []]
        plain = {"extra": ""}
        waiting += [one.name for one in needed if not one.marker or one.marker.evaluate(plain)]
    return found


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages as a GPU machine has them: a PyTorch image's, and our wheels'."""
    listed = subprocess.run(
        ["bash", REPOSITORY / "infra" / "gpu_wheels.sh", "--list"],
        capture_output=True,
        text=True,
        check=True,
    )
    wheels = listed.stdout.split()
    packages = with_requirements([*IMAGE, *wheels])
    assert {"torch", "transformers", "numpy", *wheels} <= set(packages)
    folder = tmp_path_factory.mktemp("image")
    for package in packages.values():
        for top in {file.parts[0] for file in package.files or []} - {"..", "__pycache__"}:
            link = folder / top
            if not link.exists():  # several packages may share a folder
                link.symlink_to(Path(str(package.locate_file(top))))
    return folder


@pytest.fixture
def there(image: Path) -> Command:
    """Python with these packages alone: no site-packages, no .pth files, one thread."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {
            "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{image}",
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
        }
        return subprocess.run(
            [sys.executable, "-S", *arguments],
            env=environment,
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.mark.slow
def test_the_small_form_passes_with_the_packages_of_an_image_and_of_our_wheels(
    there: Command,
    tmp_path: Path,
) -> None:
    out = tmp_path / "found.json"
    done = there("-m", "tests.gpu.check", "--device", "cpu", "--out", str(out))
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(out.read_text("utf-8"))
    assert found["passed"]
    assert found["small"]
    assert found["not_run"] == []
    assert found["versions"]["torch"] == torch.__version__
    by_name = {one["name"]: one for one in found["checks"]}
    assert list(by_name) == list(CHECKS)
    for one in by_name.values():
        assert one["figures"], one["name"]
        assert not any(value in ("nan", "inf", "-inf") for value in one["figures"].values())
    for name in ("speed_124M", "speed_350M"):
        assert set(by_name[name]["figures"]) >= SPEED
        assert by_name[name]["figures"]["ours_tokens_per_second"] > 0
    assert done.stdout.count("tokens_per_second") >= 2
    assert str(out) in done.stdout


@pytest.mark.slow
def test_what_an_image_lacks_is_really_hidden_from_that_run(there: Command) -> None:
    done = there("-c", "import torch, pydantic; print(torch.__file__); import pytest")
    assert "No module named 'pytest'" in done.stderr
    assert done.stdout.strip().endswith("torch/__init__.py")


def test_a_check_that_raises_is_written_down_with_the_figures_that_it_found() -> None:
    machine = Machine(torch.device("cpu"), small=True)

    def fails(machine: Machine) -> Figures:
        raise CheckError("too large", {"size": 2.5, "loss": float("nan")})

    def breaks(machine: Machine) -> Figures:
        raise ValueError("no\nway")

    outcome = attempt("one", fails, machine)
    assert (outcome.failure, outcome.figures) == ("too large", {"size": 2.5, "loss": "nan"})
    assert "FAILED: too large (size 2.5, loss nan)" in outcome.line()
    outcome = attempt("two", breaks, machine)
    assert outcome.failure == "ValueError: no way"
    assert "in breaks" in outcome.traceback[-4]


def run_check(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *arguments: str) -> tuple[int, Any]:
    """Exit status and JSON of a run in this process, of two checks that are not the real ones."""

    def fails(machine: Machine) -> Figures:
        raise CheckError("no")

    checks: dict[str, Check] = {"bad": fails, "good": lambda machine: {"size": 1}}
    monkeypatch.setattr(check, "CHECKS", checks)
    out = tmp_path / "found.json"
    status = check.main(["--device", "cpu", "--out", str(out), *arguments])
    return status, json.loads(out.read_text("utf-8"))


def test_a_failed_check_does_not_stop_the_rest_and_shows_in_the_exit_status(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    status, found = run_check(monkeypatch, tmp_path)
    assert status == 1
    assert {one["name"]: one["failure"] for one in found["checks"]} == {"bad": "no", "good": None}
    assert not found["passed"]
    assert run_check(monkeypatch, tmp_path, "--only", "good")[0] == 0


def test_no_check_starts_when_the_time_is_over(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    status, found = run_check(monkeypatch, tmp_path, "--seconds", "-1")
    assert (found["checks"], found["not_run"]) == ([], ["bad", "good"])
    assert "not run" in capsys.readouterr().out
    assert status == 1, "what was not run has not passed"


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H200", 989),
        ("NVIDIA GH200 480GB", 989),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A10G", 70),
        ("NVIDIA L4", 121),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
        ("Tesla V100-SXM2-16GB", None),
        ("CPU", None),
    ],
)
def test_the_peak_of_a_device_is_found_by_its_name(name: str, tflops: float | None) -> None:
    assert bfloat16_peak(name) == (tflops and tflops * 1e12)
