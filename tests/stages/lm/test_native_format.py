"""Where float32 is chosen, nothing computes 16-bit numbers.

A CPU without the instructions would emulate them.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from stages.lm import precision
from stages.lm.training.config import Compute
from tests.golden import dpo, evaluate, pretrain, sft

SHORT = (torch.bfloat16, torch.float16)


class Watch(TorchDispatchMode):
    """Collects the operations that give a 16-bit tensor, and counts all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.short: set[str] = set()
        self.count = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        made = function(*args, **(kwargs or {}))
        self.count += 1
        if any(isinstance(leaf, Tensor) and leaf.dtype in SHORT for leaf in tree_leaves(made)):
            self.short.add(str(function))
        return made


def test_the_watch_sees_the_products_of_an_update_in_bfloat16() -> None:
    from stages.lm.training.muon import Muon

    weight = torch.nn.Parameter(torch.randn(8, 8))
    weight.grad = torch.randn(8, 8)
    with Watch() as watch:
        Muon([{"params": [weight]}], lr=0.1, weight_decay=0.0, dtype=torch.bfloat16).step()
    assert any("bmm" in name for name in watch.short)


STAGES: dict[str, tuple[Any, dict[str, Any]]] = {
    "pretrain": (pretrain, {"compute": {"threads": 1, "precision": "float32"}}),
    "sft": (sft, {}),
    "dpo": (dpo, {}),
    "collect_preferences": (
        sft,
        {"prompts": 4, "max_new_tokens": 4, "keep_unfinished": True, "compute": {"threads": 1}},
    ),
    "evaluate": (evaluate, {}),
}


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
@pytest.mark.parametrize("stage", STAGES)
def test_no_operation_of_a_stage_makes_a_16_bit_tensor(
    stage: str, optimizer: str, publish: Any, run: Any
) -> None:
    golden, changes = STAGES[stage]
    settings = changes if stage == "collect_preferences" else golden.SETTINGS | changes
    if "training" in settings:
        settings = settings | {"training": settings["training"] | {"optimizer": optimizer}}
    elif optimizer == "adamw":
        pytest.skip("trains nothing")
    inputs = golden.inputs(publish)
    with Watch() as watch:
        made = run(stage, settings, **inputs)
    assert watch.short == set()
    assert watch.count > 1000
    assert made.manifest.facts["figures"].get("precision", "float32") == "float32"


def test_which_format_a_training_uses_and_why_is_said_and_kept(publish: Any, run: Any) -> None:
    made = run(
        "pretrain",
        pretrain.SETTINGS | {"compute": {"threads": 1, "precision": "float32"}},
        **pretrain.inputs(publish),
    )
    figures = made.manifest.facts["figures"]
    assert (figures["precision"], figures["precision_reason"]) == (
        "float32",
        "compute.precision asks for it",
    )


@pytest.mark.parametrize(
    ("limit", "native"),
    [
        ("AVX2", False),
        ("avx512_core", False),
        ("AVX512_CORE_BF16", True),
        ("AVX512_CORE_AMX", True),
        ("", True),
    ],
)
def test_a_limit_on_instruction_sets_counts_as_the_machine(
    limit: str, native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    chosen = precision.choose(Compute.model_validate({}), torch.device("cpu"))
    assert chosen.name == ("bfloat16" if native else "float32")
    assert chosen.reason == (
        "this CPU has avx512_bf16"
        if native
        else f"ONEDNN_MAX_CPU_ISA={limit} rules out bfloat16 instructions"
    )
