from __future__ import annotations

import os

import pytest
import torch

from data_contracts import ConfigError
from stages.lm.config import Compute
from stages.lm.precision import ISA_LIMITS, matmul_dtype, separate_compiled_kernels

CPU = torch.device("cpu")


def dtype(precision):
    return matmul_dtype(Compute.model_validate({"precision": precision}), CPU)


@pytest.fixture(autouse=True)
def no_limits(monkeypatch):
    for variable in ISA_LIMITS:
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.parametrize(
    ("instruction", "automatic"),
    [("amx_bf16", torch.bfloat16), ("avx512_bf16", torch.bfloat16), ("bf16", torch.float32), ("sve_bf16", torch.float32)],
)
def test_bfloat16_may_be_demanded_where_the_cpu_has_it_and_is_chosen_where_it_was_measured(monkeypatch, instruction, automatic):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"architecture": "any", instruction: True})
    assert dtype("bfloat16") is torch.bfloat16
    assert dtype("auto") is automatic
    assert dtype("float32") is torch.float32


def test_bfloat16_without_instructions_for_it_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "amx_bf16": False, "sve_bf16": False})
    assert dtype("auto") is torch.float32
    with pytest.raises(ConfigError, match="this CPU has no bfloat16 instructions"):
        dtype("bfloat16")


def test_kernels_compiled_for_one_instruction_set_are_not_taken_by_another(monkeypatch):
    folders = []
    for capability in ("AVX2", "AVX512"):
        monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda capability=capability: capability)
        separate_compiled_kernels()
        folders.append(os.environ["TORCHINDUCTOR_CACHE_DIR"])
    assert folders[0] != folders[1]
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/mine")
    separate_compiled_kernels()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "/mine"
