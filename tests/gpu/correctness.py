"""Training computes the right results: in bfloat16, in a resumed run, with experts.

Shapes: R rows, T tokens, V vocabulary.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from data_contracts import Interrupted
from stages.lm import precision
from stages.lm.config import ModelConfig
from stages.lm.model import LanguageModel
from stages.lm.training.batches import Batch
from stages.lm.training.loop import fit
from stages.lm.training.optimizers import gradient_norm, make_optimizers
from stages.pretrain.stage import next_token_loss
from tests.gpu import made_up
from tests.gpu.attention import HALF_BFLOAT16
from tests.gpu.machine import CheckError, Figures, Machine, has_fallen

STEPS = 6  # of a resumed run
STOPPED_AFTER = 3


def bfloat16_share(sizes: ModelConfig) -> float:
    """Largest relative error of logits from bfloat16 products, to first order.

    bfloat16 has 8 bits of mantissa, so rounding to it is off by at most 2^-9. A product rounds both
    factors and the result: 3 x 2^-9. A token passes six products in a layer (queries with keys and
    values, scores, weights with values, output; gate with up, down) and one for the logits. Their
    rounding errors are independent, so their squares add up.
    """
    return 3 * HALF_BFLOAT16 * (6 * sizes.layers + 1) ** 0.5


def bfloat16_and_float32(machine: Machine) -> Figures:
    """The losses of a few steps in bfloat16 are those of float32 within what rounding explains.

    Logits that are off by a share e (see `bfloat16_share`) of their deviation d over the
    vocabulary put the cross-entropy off by at most 2 e d: its derivative by the logits is
    softmax minus one-hot, whose absolute values sum to at most 2. From the second step on the
    weights differ too: gradients that are off by the same share e have brought the loss down by
    up to 2 e too little or too much of the way that it came. So |difference| <= 2 e (d + way).
    """
    sizes = machine.either(made_up.config, made_up.medium)()
    rows, steps = machine.either((4, 4), (32, 8))
    batch = made_up.Windows(sizes, rows).rows(0, 0, rows)
    exact, spreads, logits = _losses(machine, sizes, batch, torch.float32, steps)
    found, _, rounded = _losses(machine, sizes, batch, torch.bfloat16, steps)
    share = bfloat16_share(sizes)
    way = [exact[0] - loss for loss in exact]
    bounds = [2 * share * (d + abs(w)) for d, w in zip(spreads, way, strict=True)]
    differences = [abs(one - other) for one, other in zip(found, exact, strict=True)]
    used = [one / bound for one, bound in zip(differences, bounds, strict=True)]
    worst = used.index(max(used))
    off = float((rounded - logits).norm() / logits.norm())
    figures: Figures = {
        "first_loss": exact[0],
        "last_loss": exact[-1],
        "last_loss_bfloat16": found[-1],
        "largest_difference": differences[worst],
        "its_bound": bounds[worst],
        "logits_off": off,
        "logits_bound": share,
    }
    if not max(used) <= 1:
        raise CheckError(f"the loss of step {worst} is off by more than rounding", figures)
    if not 0 < off <= share:
        raise CheckError("logits are not float32's, rounded", figures)
    if not has_fallen(exact):
        raise CheckError("the loss did not fall", figures)
    return figures


def _losses(
    machine: Machine,
    sizes: ModelConfig,
    batch: Batch,
    dtype: torch.dtype,
    steps: int,
) -> tuple[list[float], list[float], Tensor]:
    """Loss and standard deviation of the logits at each step, and the first logits."""
    model = made_up.model(sizes, machine.device, loud=True)
    training = made_up.training(learning_rate=3e-3)
    optimizers = make_optimizers(model, training, dtype)
    rows = {name: tensor.to(machine.device) for name, tensor in batch.items()}
    losses: list[float] = []
    spreads: list[float] = []
    first = None
    for _ in range(steps):
        with precision.autocast(dtype, machine.device):
            with torch.no_grad():
                logits = model(rows["ids"]).float()
            part = next_token_loss(0.0)(model, rows)
        first = logits if first is None else first
        spreads.append(float(logits.std(-1).square().mean().sqrt()))
        losses.append(float(part.total.detach()) / float(part.weight))
        (part.total / part.weight).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    assert first is not None
    return losses, spreads, first


def resume(machine: Machine) -> Figures:
    """A run of `fit` that is stopped and continued ends in the same bits as one that is not.

    The rows are so long that attention's backward pass sums over several blocks of keys. Kernels
    that add blocks in the order in which they finish give other bits in every run. Two whole runs
    check that first.
    """
    changes = machine.either({}, {"width": 256, "layers": 4, "context": 1024})
    sizes = made_up.config(**changes)
    with TemporaryDirectory() as folder:
        whole = _fitted(machine, sizes, Path(folder, "whole"))
        again = _fitted(machine, sizes, Path(folder, "again"))
        repeated = _different(whole, again)
        stopped = made_up.Listener(lambda done: _stop_this_process(done == STOPPED_AFTER))
        try:
            _fitted(machine, sizes, Path(folder, "stopped"), stopped)
            raise CheckError("SIGTERM did not stop the run")
        except Interrupted:
            continued = made_up.Listener()
            resumed = _fitted(machine, sizes, Path(folder, "stopped"), continued)
    different = _different(whole, resumed)
    untrained = dict(made_up.model(sizes, machine.device).named_parameters())
    figures: Figures = {
        "tensors": len(whole),
        "different_in_a_repeated_run": len(repeated),
        "different_in_a_resumed_run": len(different),
    }
    if not any(f"continuing after step {STOPPED_AFTER} of" in note for note in continued.notes):
        raise CheckError("the second run did not continue from the first one's step", figures)
    if len(_different(whole, untrained)) != len(whole):
        raise CheckError("some weights were not trained", figures)
    if repeated:
        raise CheckError(f"the same run twice gives other bits, in {repeated[0]} first", figures)
    if different:
        raise CheckError(f"a resumed run gives other bits, in {different[0]} first", figures)
    return figures


def _fitted(
    machine: Machine,
    sizes: ModelConfig,
    scratch: Path,
    report: made_up.Listener | None = None,
) -> dict[str, Tensor]:
    """The weights after STEPS steps of two micro-batches each, in the default precision."""
    model = made_up.model(sizes, machine.device)
    compute = made_up.compute(micro_batch_size=4, compile="on" if machine.on_gpu else "off")
    fit(
        model,
        made_up.Windows(sizes, 8),
        next_token_loss(0.0),
        training=made_up.training(batch_size=8),
        compute=compute,
        steps=STEPS,
        scratch=scratch,
        report=report or made_up.Listener(),
        guard={"seed": 1},
    )
    return dict(model.named_parameters())


def _stop_this_process(now: bool) -> None:
    if now:
        os.kill(os.getpid(), signal.SIGTERM)  # `fit` catches it and stops after the step


def _different(some: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> list[str]:
    return [name for name, tensor in some.items() if not torch.equal(tensor, others[name])]


def experts(machine: Machine) -> Figures:
    """A mixture of experts, forward and backward, gives what the CPU gives in float32.

    The relative bound for float32 is 2^-12: its rounding of 2^-24, a thousand-fold for the sums of
    both passes and the softmaxes between. In bfloat16 a token may go to another expert, where two
    of them are close, so only the loss is compared, and its bound is wider than that of
    `bfloat16_and_float32`: the loss itself stands for the deviation of the logits.
    """
    sizes = made_up.config(
        architecture="qwen3_moe",
        moe={
            "experts": machine.either(4, 8),
            "experts_per_token": 2,
            "expert_width": machine.either(48, 384),
        },
        **machine.either({}, {"width": 256, "heads": 8}),
    )
    batch = made_up.Windows(sizes, 8).rows(0, 0, 8)
    exact, exact_norm, _ = _pass(torch.device("cpu"), sizes, batch, torch.float32)
    loss, norm, without = _pass(machine.device, sizes, batch, torch.float32)
    rounded, _, _ = _pass(machine.device, sizes, batch, torch.bfloat16)
    bound = 2 * bfloat16_share(sizes) * exact
    figures: Figures = {
        "loss": loss,
        "loss_on_cpu": exact,
        "gradient_norm": norm,
        "gradient_norm_on_cpu": exact_norm,
        "loss_bfloat16": rounded,
        "bfloat16_bound": bound,
        "weights_without_gradient": without,
    }
    if not (abs(loss / exact - 1) < 2**-12 and abs(norm / exact_norm - 1) < 2**-12):
        raise CheckError("loss or gradient in float32 is not the CPU's", figures)
    if not abs(rounded - exact) <= bound:
        raise CheckError("the loss in bfloat16 is off by more than rounding", figures)
    if without:
        raise CheckError("some weights got no gradient", figures)
    return figures


def _pass(
    device: torch.device,
    sizes: ModelConfig,
    batch: Batch,
    dtype: torch.dtype,
) -> tuple[float, float, int]:
    """Loss, gradient norm, and how many weights have no gradient or one that is all zeros."""
    model: LanguageModel = made_up.model(sizes, device, loud=True)
    rows = {name: tensor.to(device) for name, tensor in batch.items()}
    with precision.autocast(dtype, device):
        part = next_token_loss(0.0)(model, rows)
    (part.total / part.weight).backward()
    without = sum(one.grad is None or not one.grad.any() for one in model.parameters())
    loss = float(part.total.detach()) / float(part.weight)
    return loss, float(gradient_norm(model)), int(without)
