from __future__ import annotations

import os

import pytest
import torch
from torch._inductor.runtime.cache_dir_utils import default_cache_dir

from data_contracts import ConfigError
from stages.lm.precision import ISA_LIMITS, compile_blocks, matmul_dtype
from stages.lm.training.config import Compute

CPU = torch.device("cpu")


def dtype(precision):
    return matmul_dtype(Compute.model_validate({"precision": precision}), CPU)


@pytest.fixture(autouse=True)
def no_limits(monkeypatch):
    for variable in ISA_LIMITS:
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.parametrize(
    ("instruction", "automatic"),
    [
        ("amx_bf16", torch.bfloat16),
        ("avx512_bf16", torch.bfloat16),
        ("bf16", torch.float32),
        ("sve_bf16", torch.float32),
    ],
)
def test_bfloat16_may_be_demanded_where_the_cpu_has_it_and_is_chosen_where_it_was_measured(
    monkeypatch, instruction, automatic
):
    monkeypatch.setattr(
        torch.cpu, "get_capabilities", lambda: {"architecture": "any", instruction: True}
    )
    assert dtype("bfloat16") is torch.bfloat16
    assert dtype("auto") is automatic
    assert dtype("float32") is torch.float32


def test_bfloat16_without_instructions_for_it_is_refused(monkeypatch):
    monkeypatch.setattr(
        torch.cpu, "get_capabilities", lambda: {"avx2": True, "amx_bf16": False, "sve_bf16": False}
    )
    assert dtype("auto") is torch.float32
    with pytest.raises(ConfigError, match="this CPU has no bfloat16 instructions"):
        dtype("bfloat16")


@pytest.mark.parametrize("set_by_torch", [False, True])
def test_kernels_of_two_instruction_sets_are_kept_apart(monkeypatch, set_by_torch):
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    default = default_cache_dir()
    folders = set()
    for capability in ("AVX2", "AVX512"):
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", default)
        if not set_by_torch:
            monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda name=capability: name)
        compile_blocks([])
        folders.add(os.environ["TORCHINDUCTOR_CACHE_DIR"])
    assert folders == {f"{default}_AVX2", f"{default}_AVX512"}


def test_a_folder_for_kernels_that_the_user_names_is_kept(monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/mine")
    compile_blocks([])
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "/mine"
