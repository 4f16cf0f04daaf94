"""SFT with document masks, DPO, generation and evaluation, as the stages run them.

Shapes: B rows, T tokens, 4 choices of an item.
"""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
import torch
from torch import Tensor

from stages.dpo.config import DpoTraining
from stages.dpo.loss import preference_loss
from stages.dpo.pairs import Pair, PairBatches
from stages.dpo.stage import ROUNDING, ROWS_AT_ONCE
from stages.lm import precision
from stages.lm.config import ModelConfig
from stages.lm.generate import generate
from stages.lm.loss import IGNORED, row_logprobs
from stages.lm.model import LanguageModel
from stages.lm.training.batches import Batch
from stages.lm.training.loop import fit
from stages.report import Report
from stages.sft.config import SftTraining
from stages.sft.packing import Example, PackedChats
from stages.sft.stage import answer_loss
from tests.gpu import made_up
from tests.gpu.correctness import bfloat16_share
from tests.gpu.machine import CheckError, Figures, Machine, has_fallen

ITEMS, CHOICES = 100, 4
REAL = {
    "vocab_size": 50304,
    "width": 768,
    "layers": 12,
    "heads": 12,
    "kv_heads": 4,
    "ffn_width": 2048,
}


def sft(machine: Machine) -> Figures:
    """Packed conversations do not see each other, and training on them lowers the loss.

    The loss of packed rows is the sum of that of the conversations alone. In float32 the two may
    differ by 2^-14: rotary positions go on through a row, so their angles are rounded differently
    (by up to 2^-24 times the position).
    """
    sizes = made_up.config(context=machine.either(128, 512))
    chats = PackedChats(_examples(sizes, 24), sizes.context, 4, seed=0, pad=0)
    model = made_up.model(sizes, machine.device, loud=True)
    packed = _answer_nats(model, chats.at(slice(None)), machine)
    apart = [PackedChats([one], sizes.context, 1, 0, 0) for one in _examples(sizes, 24)]
    alone = sum(_answer_nats(model, one.at(slice(None)), machine) for one in apart)
    batch = dict(chats.at(slice(None)))
    batch["segments"] = batch["segments"].clamp(max=1)  # as if they did see each other
    seeing = _answer_nats(model, batch, machine)
    figures: Figures = {
        "rows": chats.rows_per_epoch,
        "filled": chats.filled,
        "packed_nats": packed,
        "alone_nats": alone,
        "nats_without_mask": seeing,
    }
    if not abs(packed / alone - 1) < 2**-14:
        raise CheckError("packed conversations have another loss than each alone", figures)
    if not abs(seeing / alone - 1) > 2**-12:
        raise CheckError("the loss hardly depends on the mask, so nothing was tried", figures)
    return figures | _sft_training(machine, figures)


def _sft_training(machine: Machine, before: Figures) -> Figures:
    sizes = machine.either(made_up.config(), ModelConfig(**REAL, context=2048))
    rows, steps = machine.either((4, 6), (16, 20))
    chats = PackedChats(_examples(sizes, 8 * rows), sizes.context, rows, seed=0, pad=0)
    model = made_up.model(sizes, machine.device)
    training = SftTraining(batch_size=rows, log_every=1)
    with machine.peak_memory() as memory, TemporaryDirectory() as scratch:
        fitted = fit(
            model,
            chats,
            answer_loss(0.0),
            training=training,
            compute=made_up.compute(),
            steps=steps,
            scratch=Path(scratch),
            report=Report(),
            guard={},
        )
    first, last = fitted.metrics[0]["loss"], fitted.metrics[-1]["loss"]
    figures: Figures = {
        "context": sizes.context,
        "first_loss": first,
        "last_loss": last,
        "tokens_per_second": fitted.figures["tokens_per_second"],
        "precision": fitted.figures["precision"],
        **memory,
    }
    if not has_fallen((first, last)):
        raise CheckError("the loss of SFT did not fall", before | figures)
    return figures


def _answer_nats(model: LanguageModel, batch: Batch, machine: Machine) -> float:
    rows = {name: tensor.to(machine.device) for name, tensor in batch.items()}
    with torch.no_grad():
        return float(answer_loss(0.0)(model, rows).total)


def _examples(sizes: ModelConfig, count: int) -> list[Example]:
    """Conversations of an eighth to half of a row; the second half of each is the answer."""
    made = []
    drawn = made_up.tokens(count, sizes.context, sizes.vocab_size, seed=3)
    for number, row in enumerate(drawn.numpy().astype(np.int32)):
        length = sizes.context // 8 + number * 37 % (3 * sizes.context // 8)
        read, wanted = row[:length], row[1 : length + 1].copy()
        wanted[: length // 2] = IGNORED
        made.append(Example(f"chat {number}", read, wanted))
    return made


def dpo(machine: Machine) -> Figures:
    """The first loss is ln 2, as policy and reference are one model; after that it falls.

    ROUNDING is the difference that the stage allows: policy and reference are computed in batches
    of different sizes, so bfloat16 products may be rounded differently.
    """
    sizes = machine.either(made_up.config(), ModelConfig(**REAL, context=512))
    pairs, rows, steps = machine.either((8, 4, 6), (32, 16, 12))
    train = PairBatches(_pairs(sizes, pairs), rows, seed=0, pad=0)
    model = made_up.model(sizes, machine.device)
    compute = made_up.compute()
    with precision.autocast(precision.matmul_dtype(compute, machine.device), machine.device):
        train.remember_reference(model, ROWS_AT_ONCE, Report())
    training = DpoTraining(
        batch_size=rows, log_every=1, learning_rate=1e-3, lr_schedule={"warmup_share": 0.0}
    )
    with machine.peak_memory() as memory, TemporaryDirectory() as scratch:
        fitted = fit(
            model,
            train,
            preference_loss(0.1, 0.0, False),
            training=training,
            compute=compute,
            steps=steps,
            scratch=Path(scratch),
            report=Report(),
            guard={},
            sequences_per_row=2,
        )
    first, last = fitted.metrics[0], fitted.metrics[-1]
    figures: Figures = {
        "loss_at_step_0": first["loss"],
        "off_ln_2": abs(first["loss"] - math.log(2)),
        "last_loss": last["loss"],
        "last_reward_accuracy": last["reward_accuracy"],
        "tokens_per_second": fitted.figures["tokens_per_second"],
        "precision": fitted.figures["precision"],
        **memory,
    }
    if not figures["off_ln_2"] <= ROUNDING:
        raise CheckError("the loss at step 0 is not ln 2", figures)
    if not last["loss"] < math.log(2) - ROUNDING:
        raise CheckError("the loss of DPO did not fall", figures)
    return figures


def _pairs(sizes: ModelConfig, count: int) -> list[Pair]:
    """Two answers to each question, of different lengths."""
    asked, longest = sizes.context // 4, sizes.context // 2
    drawn = made_up.tokens(2 * count, longest + 1, sizes.vocab_size, seed=4)
    drawn[1::2, :asked] = drawn[::2, :asked]
    sides = []
    for row, ids in enumerate(drawn.numpy().astype(np.int32)):
        length = longest - row // 2 * (row % 2)
        read, wanted = ids[:length], ids[1 : length + 1].copy()
        wanted[: asked - 1] = IGNORED
        sides.append((read, wanted))
    return [Pair(f"pair {at}", sides[2 * at], sides[2 * at + 1]) for at in range(count)]


def generation(machine: Machine) -> Figures:
    """Greedy text in float32, batched and with a cache, is that of the CPU token by token.

    The CPU reads the whole text again for every token, one prompt at a time and without a cache.
    A token counts only where the CPU's first choice is ahead by 2^-10 of the logits' deviation.
    Otherwise rounding decides, and the comparison of that prompt ends.
    """
    sizes = made_up.config(**machine.either({}, {"width": 256, "layers": 4, "context": 512}))
    new = machine.either(16, 64)
    drawn = made_up.tokens(6, 41, sizes.vocab_size, seed=5).tolist()
    prompts = [drawn[row][:length] for row, length in enumerate((1, 2, 3, 7, 20, 41))]
    model = made_up.model(sizes, machine.device, loud=True).eval()
    generate(model, prompts, max_new_tokens=2)  # loads the kernels
    started = perf_counter()
    found = generate(model, prompts, max_new_tokens=new)
    seconds = perf_counter() - started
    cpu_model = made_up.model(sizes, torch.device("cpu"), loud=True).eval()
    wanted = [_greedy(cpu_model, prompt, new) for prompt in prompts]
    figures: Figures = {
        "prompts": len(prompts),
        "compared_tokens": sum(map(len, wanted)),
        "different_answers": len({tuple(answer) for answer in found}),
        "tokens_per_second": round(new * len(prompts) / seconds),
    }
    for number, (answer, reference) in enumerate(zip(found, wanted, strict=True)):
        if len(answer) != new or answer[: len(reference)] != reference:
            said = f"goes on as {answer}, on the CPU as {reference}"
            raise CheckError(f"prompt {number} {said}", figures)
    if figures["compared_tokens"] < new * len(prompts) // 2:
        raise CheckError("most tokens were too close to compare", figures)
    return figures


@torch.no_grad()
def _greedy(model: LanguageModel, prompt: list[int], new: int) -> list[int]:
    ids = list(prompt)
    for _ in range(new):
        logits_V = model(torch.tensor([ids]))[0, -1]
        best, second = logits_V.topk(2).values.tolist()
        if best - second < 2**-10 * float(logits_V.std()):
            break
        ids.append(int(logits_V.argmax()))
    return ids[len(prompt) :]


def evaluation(machine: Machine) -> Figures:
    """100 items by log-likelihood: bfloat16 chooses as float32 does, float32 as the CPU does.

    A choice of n tokens is a sum of n log-probabilities. Each is off by up to 2 e d (see
    `bfloat16_and_float32`), and independently: 2 e d sqrt(n) is the deviation that may be expected
    at most, and four times that is not exceeded by any of 400 choices.
    float32 on two machines differs by the order of sums: 2^-12, as in `experts`.
    """
    sizes = machine.either(made_up.config, made_up.medium)()
    question, answer = machine.either((24, 6), (96, 12))
    drawn = made_up.tokens(ITEMS * CHOICES, question + answer, sizes.vocab_size, seed=6)
    drawn[:, :question] = drawn[::CHOICES, :question].repeat_interleave(CHOICES, 0)
    model = made_up.model(sizes, machine.device, loud=True)
    plain = _loglikelihoods(model, drawn, answer, torch.float32)
    started = perf_counter()
    rounded = _loglikelihoods(model, drawn, answer, torch.bfloat16)
    seconds = perf_counter() - started
    cpu_model = made_up.model(sizes, torch.device("cpu"), loud=True)
    exact = _loglikelihoods(cpu_model, drawn, answer, torch.float32)
    with torch.no_grad():
        spread = float(cpu_model(drawn[:1]).std(-1).square().mean().sqrt())
    bound = 4 * 2 * bfloat16_share(sizes) * spread * answer**0.5
    agreed = _agreement(plain, rounded)
    figures: Figures = {
        "items": ITEMS,
        "items_per_second_bfloat16": round(ITEMS / seconds, 1),
        "agreed_bfloat16": agreed,
        "agreed_with_cpu": _agreement(plain, exact),
        "largest_difference": float((rounded - plain).abs().max()),
        "its_bound": bound,
        "off_cpu": float(((plain - exact) / exact).abs().max()),
    }
    if not (figures["off_cpu"] < 2**-12 and figures["agreed_with_cpu"] == ITEMS):
        raise CheckError("log-likelihoods in float32 are not the CPU's", figures)
    if not 0 < figures["largest_difference"] <= bound:
        raise CheckError("bfloat16 is not float32, rounded", figures)
    if agreed < 0.9 * ITEMS:
        raise CheckError("bfloat16 and float32 choose differently in too many items", figures)
    return figures


@torch.no_grad()
def _loglikelihoods(model: LanguageModel, drawn: Tensor, answer: int, dtype: torch.dtype) -> Tensor:
    """[items, 4] log-likelihood of each choice, 64 rows at a time."""
    device = model.head_weight.device
    found = []
    for tokens_BT in drawn.to(device).split(64):
        labels_BT = tokens_BT[:, 1:].clone()
        labels_BT[:, :-answer] = IGNORED
        with precision.autocast(dtype, device):
            head = partial(row_logprobs, labels_BT=labels_BT)
            logprobs_B = model(tokens_BT[:, :-1], head)
        found.append(logprobs_B.double().cpu())
    return torch.cat(found).view(ITEMS, CHOICES)


def _agreement(some: Tensor, others: Tensor) -> int:
    return int((some.argmax(1) == others.argmax(1)).sum())
