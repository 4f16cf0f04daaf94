"""What each system says of its CPU is read, and where it says nothing there is still a line."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bench import machine

LINUX_X86 = """processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: 17
model name\t: AMD EPYC
flags\t\t: fpu sse2 avx2 avx512f avx512_bf16

processor\t: 1
model name\t: another
"""
LINUX_ARM = """processor\t: 0
Features\t: fp asimd sve bf16 svebf16
CPU implementer\t: 0x41
"""
LSCPU = """Architecture:  aarch64
Model name:    Neoverse-V1
"""
MACOS_ARM = """machdep.cpu.brand_string: Apple M2
hw.optional.arm.FEAT_BF16: 1
hw.optional.arm.FEAT_SME: 0
hw.optional.AdvSIMD: 1
"""
MACOS_X86 = """machdep.cpu.brand_string: Intel(R) Core(TM) i7-8569U CPU @ 2.80GHz
hw.optional.avx2_0: 1
hw.optional.avx512f: 0
"""


def test_a_linux_machine_is_read_from_cpuinfo() -> None:
    name, flags = machine.from_cpuinfo(LINUX_X86)
    assert name == "AMD EPYC (family 25, model 17)"
    assert flags == ("avx2", "avx512f", "avx512_bf16")


def test_flags_of_a_mac_are_read_from_sysctl() -> None:
    assert machine.from_sysctl(MACOS_ARM) == ("Apple M2", ("asimd", "bf16"))
    name, flags = machine.from_sysctl(MACOS_X86)
    assert name.startswith("Intel(R) Core(TM) i7")
    assert flags == ("avx2",)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """What the system says: the text of /proc/cpuinfo, the outputs of programs by name."""
    said: dict[str, str] = {}
    monkeypatch.setattr(machine, "_text", lambda path: said.get(str(path), ""))
    monkeypatch.setattr(machine, "_output", lambda *command: said.get(command[0], ""))
    machine._identified.cache_clear()
    yield said
    machine._identified.cache_clear()


def test_the_name_of_an_arm_cpu_is_that_of_lscpu(seen: dict[str, str]) -> None:
    seen |= {"/proc/cpuinfo": LINUX_ARM, "lscpu": LSCPU}
    found = machine.cpu()
    assert found["name"] == "Neoverse-V1"
    assert found["flags"] == ["asimd", "sve", "bf16", "svebf16"]


def test_a_mac_has_no_cpuinfo(seen: dict[str, str]) -> None:
    seen["sysctl"] = MACOS_ARM
    assert machine.cpu()["name"] == "Apple M2"


def test_a_machine_that_says_nothing_has_a_line_all_the_same(
    seen: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delattr(machine.os, "getloadavg")
    monkeypatch.setattr(machine.platform, "processor", str)
    monkeypatch.setattr(machine.platform, "machine", str)
    machine.report({"bench": "none"})
    line = json.loads(capsys.readouterr().out)
    assert line["cpu"]["name"] == "unknown"
    assert line["cpu"]["flags"] == []
    assert line["load"] is None


@pytest.mark.parametrize("error", [FileNotFoundError(), subprocess.TimeoutExpired("lscpu", 10)])
def test_a_program_that_is_missing_or_hangs_says_nothing(
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(machine.subprocess, "run", refuse)
    assert machine._output("lscpu") == ""


def test_a_file_that_is_missing_says_nothing(tmp_path: Path) -> None:
    assert machine._text(tmp_path / "cpuinfo") == ""


def test_settings_that_bear_on_figures_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in machine.SETTINGS:
        monkeypatch.delenv(variable, raising=False)
    assert "settings" not in machine.cpu()
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert machine.cpu()["settings"] == {"ONEDNN_MAX_CPU_ISA": "AVX2"}


def test_floats_have_four_digits_however_deep_and_counts_all_of_theirs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    machine.report({"count": 123456, "inner": {"small": 0.000123456, "large": 123456.0}})
    line = json.loads(capsys.readouterr().out)
    assert line["count"] == 123456
    assert line["inner"] == {"small": 0.0001235, "large": 123500.0}


def test_a_figure_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        machine.report({"speed": float("nan")})
