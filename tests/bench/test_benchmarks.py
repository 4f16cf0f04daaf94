"""Every benchmark runs in its smallest form and prints what it promises; how fast is not asked.

A new benchmark needs an entry in SMALLEST.
"""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.bench import __main__ as runner
from tests.bench import machine


@dataclass(frozen=True)
class Smallest:
    """arguments: its smallest form. figures: those it promises, "outer.inner" if nested."""

    arguments: tuple[str, ...]
    figures: tuple[str, ...]
    lines: int = 1
    slow: bool = False


GGUF = ("write_s", "mweights_cpu_s", "mb", "prompt_tok_s", "generation_tok_s", "of_bandwidth")
SIDES = ("ours", "transformers")
SMALLEST = {
    "clean": Smallest(
        ("--pages", "3"),
        ("clean_pages_per_cpu_s", "clean_mb_per_cpu_s", "ratio_to_peer", "ratio_to_bare"),
    ),
    "dedup": Smallest(
        ("--docs", "8"),
        ("ours_kept", "peer_kept", "ours_mb_per_cpu_s", "peer_mb_per_cpu_s", "ratio_to_peer"),
    ),
    "demo": Smallest(
        ("--recipe", "smoke"),
        ("seconds", "peak_gb", "rerun_seconds", "orchestration_share", "bits_per_byte", "xz"),
        slow=True,
    ),
    "export": Smallest(
        ("--width", "64", "--layers", "1", "--vocab", "320", "--copy-megabytes", "4"),
        tuple(f"{kind}.{name}" for kind in ("F16", "Q8_0", "Q4_0") for name in GGUF),
        slow=True,
    ),
    "io": Smallest(
        ("--rows", "500"),
        ("write_s", "pyarrow_read_s", "check_s", "sha256_s", "MB_per_s", "check_over_read"),
        lines=3,
    ),
    "pack": Smallest(
        (str(Path(json.__file__).parent), "--rounds", "1"),
        ("tokens", "pack_MB_per_s_core", "tokenizers_MB_per_s_core", "ratio"),
    ),
    "train": Smallest(
        ("--small", "--rounds", "1", "--threads", "1"),
        (
            *(f"tokens_per_second.{side}" for side in SIDES),
            *(f"micro_batch_rows.{side}" for side in SIDES),
            *(f"loss.{side}" for side in SIDES),
            *(f"gflop_per_step.{part}" for part in ("model", "muon", "both")),
            *(f"gflops_per_second.{part}" for part in ("model", "muon", "both")),
            "ratio",
            "cpu_ratio",
            "optimizer_share",
            "gemm_peak_gflops_per_second",
            "share_of_gemm_peak",
            "targets.ratio",
        ),
        slow=True,
    ),
}


def parameter(name: str) -> Any:
    """A benchmark to call, marked if it is slow."""
    slow = name in SMALLEST and SMALLEST[name].slow
    return pytest.param(name, marks=[pytest.mark.slow] if slow else [])


def smallest(name: str, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """The lines that a benchmark prints in its smallest form."""
    importlib.import_module(f"tests.bench.{name}_bench").main(list(SMALLEST[name].arguments))
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_every_benchmark_has_a_smallest_form() -> None:
    assert runner.benchmarks() == sorted(SMALLEST)


@pytest.mark.parametrize("name", [parameter(name) for name in runner.benchmarks()])
def test_a_benchmark_runs_in_its_smallest_form_and_prints_what_it_promises(
    name: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = smallest(name, capsys)
    assert len(lines) == SMALLEST[name].lines
    for line in lines:
        assert line["bench"]
        assert line["cpu"]["name"]
        assert line["cpu"]["cores"] >= 1
        assert set(line["cpu"]["flags"]) <= set(machine.FLAGS)
        for figure in SMALLEST[name].figures:
            value: Any = line
            for key in figure.split("."):
                value = value[key]
            assert math.isfinite(value), figure
            assert value > 0, figure


@pytest.mark.slow
def test_both_sides_of_the_training_benchmark_learn_the_same(
    capsys: pytest.CaptureFixture[str],
) -> None:
    (line,) = smallest("train", capsys)
    assert line["optimizers"] == ["AdamW", "Muon"]
    assert line["loss"]["ours"] == pytest.approx(line["loss"]["transformers"], rel=0.01)
    assert line["loss"]["ours"] < 0.95 * math.log(64), "nothing was learned"


def test_the_runner_goes_on_past_a_benchmark_that_fails_and_names_it(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    programs = {"clean": "print('first')", "dedup": "raise SystemExit(3)", "io": "print('last')"}
    monkeypatch.setattr(runner, "command", lambda name: [sys.executable, "-c", programs[name]])
    assert runner.main(list(programs)) == 1
    printed = capfd.readouterr()
    described, *others = printed.out.splitlines()
    assert json.loads(described)["precision_reason"]
    assert others == ["first", "last"]
    assert printed.err.splitlines()[-1] == "failed: dedup_bench, exit status 3"


def test_the_runner_is_content_when_nothing_fails(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(runner, "command", lambda name: [sys.executable, "-c", ""])
    assert runner.main(["io"]) == 0
    assert capfd.readouterr().err == ""


def test_a_benchmark_that_does_not_exist_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        runner.main(["clena"])
    assert "no benchmark clena; there are clean," in capsys.readouterr().err


def test_what_the_runner_starts_is_there() -> None:
    modules = [runner.command(name)[-1] for name in runner.benchmarks()]
    assert modules
    assert [module for module in modules if importlib.util.find_spec(module) is None] == []


def test_threads_that_wait_sleep_soon_as_in_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert runner.environment()["GOMP_SPINCOUNT"] == "2000"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert "GOMP_SPINCOUNT" not in runner.environment()
