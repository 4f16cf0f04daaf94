"""Weights sharded over ranks with FSDP2 (torch.distributed.fsdp.fully_shard).

With replicas of the sharded model, this is HSDP.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from stages.lm import precision
from stages.lm.parallel.collectives import is_main_process, world_size
from stages.lm.training.config import Compute

if TYPE_CHECKING:
    from stages.lm.model import LanguageModel


def shard_model(model: LanguageModel, compute: Compute) -> LanguageModel:
    """Put the model on this rank's device and, with several ranks, shard it.

    Parameters stay float32. They are gathered in the number format of the matrix products.
    Gradients are reduced in float32.

    Args:
        model: The whole model, in float32 on the CPU.
        compute: Replicas and the number format.
    """
    device = precision.device_of()
    if world_size() == 1:
        return model.to(device)
    mesh = _mesh(compute, device)
    dtype = precision.matmul_dtype(compute, device)
    policy = MixedPrecisionPolicy(
        param_dtype=dtype if dtype is torch.bfloat16 else None,
        reduce_dtype=torch.float32,
        cast_forward_inputs=False,
    )
    # Each block is a unit that moves to the device alone, so that the whole model is never there.
    for block in model.model.layers:
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    return model


def _mesh(compute: Compute, device: torch.device) -> DeviceMesh:
    """Make a mesh: a dimension for shards and, with compute.replicas above 1, one for replicas."""
    if compute.replicas == 1:
        return init_device_mesh(device.type, (world_size(),), mesh_dim_names=("shard",))
    shape = (compute.replicas, world_size() // compute.replicas)
    return init_device_mesh(device.type, shape, mesh_dim_names=("replicate", "shard"))


def full_state_dict(model: LanguageModel) -> dict[str, Tensor]:
    """Gather the state_dict on the CPU of rank 0. Other ranks get an empty dict.

    All ranks must call it.

    Args:
        model: The model, sharded or not.

    Returns:
        Whole tensors by name.
    """
    weights = {}
    for name, tensor in model.state_dict().items():
        whole = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
        if is_main_process():
            weights[name] = whole.detach().cpu()
    return weights


def set_is_last_micro_batch(model: LanguageModel, is_last: bool) -> None:
    """Make replicas exchange gradients after the last micro-batch of a step only.

    Shards exchange them after every micro-batch, or else every rank would hold all gradients.

    Args:
        model: The model, sharded or not.
        is_last: Whether the next micro-batch is the last of its step.
    """
    if isinstance(model, FSDPModule):
        model.set_requires_all_reduce(is_last)


def reshard(model: LanguageModel) -> None:
    """Free gathered weights. Call it after passes without gradients and before the first step.

    FSDP2 keeps the outer weights gathered after such a pass, and would use the stale copies during
    the whole training.

    Args:
        model: The model, sharded or not.
    """
    if isinstance(model, FSDPModule):
        model.reshard()


def gradient_factor() -> float:
    """Return the factor that turns gradients, which FSDP averages over ranks, into sums."""
    return float(world_size())
