"""sft: a base checkpoint and conversations → a checkpoint that answers and stops."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor

from data_contracts import Artifact, Draft, InputError
from stages.lm.chat import ChatFormat, Messages
from stages.lm.checkpoint import load_model, write_checkpoint
from stages.lm.generate import generate
from stages.lm.loss import balance_loss, token_loss
from stages.lm.model import LanguageModel
from stages.lm.parallel import collectives, fsdp
from stages.lm.parallel.launch import distributed
from stages.lm.precision import device_of
from stages.lm.tokenizer import ModelTokenizer
from stages.lm.training.batches import Batch
from stages.lm.training.loop import Fitted, fit
from stages.lm.training.step import Loss, LossFunction
from stages.report import Facts, Report
from stages.sft import examples
from stages.sft.config import SftConfig
from stages.sft.examples import ExampleSets
from stages.sft.packing import Example, PackedChats
from stages.sft.replay import WithReplay, replayed_rows, windows
from stages.text.heldout import first_by_id

ROWS_AT_ONCE = 32  # of a held-out evaluation
SAMPLES = 3


@distributed("sft")
def run(
    config: SftConfig,
    *,
    checkpoint: Artifact,
    conversations: Artifact,
    token_shards: Artifact | None = None,
    out: Draft,
    report: Report,
) -> Facts:
    """Train on the assistant's tokens only, with conversations packed into rows.

    `token_shards` holds pretraining text and is read only if `replay` is above 0.

    Args:
        config: The settings of the stage.
        checkpoint: The checkpoint to train.
        conversations: What to train and evaluate on.
        token_shards: Pretraining text to replay.
        out: The draft of the checkpoint.
        report: Receives progress, metrics and notes.

    Raises:
        InputError: No conversation is left to train on.
        ConfigError: `replay` is above 0 and there are no token shards.
    """
    chat = ChatFormat(ModelTokenizer(checkpoint))
    model = load_model(checkpoint)
    context = model.config.context
    pad = chat.tokenizer.pad_id
    found = examples.read(conversations, chat, context, config.repeat)
    if not found.train:
        raise _nothing_left(conversations, found, context)
    heldout_rows = _chosen_heldout(found, config.heldout_conversations)
    heldout_examples = [example for example, _ in heldout_rows]
    heldout = PackedChats(heldout_examples, context, 1, config.seed, pad)

    replayed = replayed_rows(config.replay, config.training.batch_size)
    chat_rows = config.training.batch_size - replayed
    chats = PackedChats(found.train, context, chat_rows, config.seed, pad)
    batches: PackedChats | WithReplay = chats
    if replayed:
        batches = _with_replay(config, chats, replayed, token_shards, checkpoint, out, context)

    model = fsdp.shard_model(model, config.compute)
    result = fit(
        model,
        batches,
        answer_loss(config.training.stability.z_loss),
        training=config.training,
        compute=config.compute,
        steps=config.training.steps(batches.tokens_per_row, batches.rows_per_epoch),
        scratch=out.scratch,
        report=report,
        guard=_guard(config, checkpoint, conversations),
        evaluate=partial(score, heldout=heldout) if heldout_rows else None,
    )
    write_checkpoint(out, model, chat.tokenizer, result.metrics, chat.stop_ids)
    if not collectives.is_main_process():
        return Facts()
    return _facts(config, found, chats, heldout_rows, chat, out, result)


def _chosen_heldout(found: ExampleSets, limit: int) -> list[tuple[Example, Messages]]:
    """Return the first held-out examples, by name."""
    return first_by_id(found.heldout, limit, lambda row: row[0].name)


def _guard(
    config: SftConfig, checkpoint: Artifact, conversations: Artifact
) -> dict[str, str | int | float]:
    """Return what identifies a run; see `stages.lm.training.loop.fit`."""
    return {
        "seed": config.seed,
        "checkpoint": checkpoint.id,
        "conversations": conversations.id,
        "replay": config.replay,
    }


def _facts(
    config: SftConfig,
    found: ExampleSets,
    chats: PackedChats,
    heldout_rows: list[tuple[Example, Messages]],
    chat: ChatFormat,
    out: Draft,
    result: Fitted,
) -> Facts:
    """Return the figures and sample answers of the finished checkpoint."""
    model = load_model(out.files, device_of())
    prompts = [messages for _, messages in heldout_rows[: config.answers]]
    stops, samples = answers(model, chat, prompts, config.max_new_tokens)
    figures = {
        "heldout_loss": result.metrics[-1].get("heldout_loss"),
        "stops": stops,
        "answered": len(prompts),
        "conversations": len({example.name for example in found.train}),
        "heldout_conversations": len(heldout_rows),
        "assistant_tokens": chats.answer_tokens,
        "rows": chats.rows_per_epoch,
        "filled": round(chats.filled, 3),
        "shortened": found.shortened,
        "dropped": found.rejected.total(),
        **result.figures,
    }
    rejected = dict(sorted(found.rejected.items()))
    return Facts(figures=figures, rejected=rejected, samples=samples, notes=result.notes)


def _with_replay(
    config: SftConfig,
    chats: PackedChats,
    rows: int,
    token_shards: Artifact | None,
    checkpoint: Artifact,
    out: Draft,
    context: int,
) -> WithReplay:
    with collectives.main_process_first():
        replayed = windows(
            config.replay, rows, token_shards, checkpoint, out.scratch, context, config.seed
        )
    return WithReplay(chats, replayed, config.training.batch_size)


def answer_loss(z_loss: float) -> LossFunction:
    """Return a loss: the cross-entropy of the assistant's tokens, plus load balancing if sparse.

    Args:
        z_loss: Weight of the z-loss; see `stages.lm.loss.token_loss`.
    """

    def loss(model: LanguageModel, batch: Batch) -> Loss:
        labels_BT = batch["labels"]
        segments_BT = batch["segments"]
        real_BT = segments_BT > 0

        def head(hidden_BTD: Tensor, weight_VD: Tensor) -> tuple[Tensor, Tensor]:
            return token_loss(hidden_BTD, weight_VD, labels_BT, z_loss)

        total, plain = model(batch["ids"], head, segments_BT=segments_BT, real_BT=real_BT)
        counted_B = (labels_BT >= 0).sum(1)
        return Loss(
            total + balance_loss(model.balance_B, counted_B),
            weight=counted_B.sum(),
            tokens=real_BT.sum(),
            figures={"loss": plain},
        )

    return loss


def score(model: LanguageModel, heldout: PackedChats) -> dict[str, float]:
    """Compute `heldout_loss` in nats per assistant token.

    Args:
        model: The model, in evaluation mode.
        heldout: The held-out conversations.
    """
    nats = 0.0
    for start in range(0, heldout.rows_per_epoch, ROWS_AT_ONCE):
        nats += _summed_loss(model, heldout.at(slice(start, start + ROWS_AT_ONCE)))
    return {"heldout_loss": nats / heldout.answer_tokens}


def _summed_loss(model: LanguageModel, batch: Batch) -> float:
    device = model.head_weight.device
    labels_BT = batch["labels"].to(device)

    def head(hidden_BTD: Tensor, weight_VD: Tensor) -> Tensor:
        return token_loss(hidden_BTD, weight_VD, labels_BT)[1]

    segments_BT = batch["segments"].to(device)
    return float(model(batch["ids"].to(device), head, segments_BT=segments_BT))


def answers(
    model: LanguageModel, chat: ChatFormat, conversations: list[Messages], max_new_tokens: int
) -> tuple[float | None, list[dict[str, Any]]]:
    """Answer the last question of each conversation greedily.

    Args:
        model: The trained model.
        chat: Encodes the conversations.
        conversations: Each ends with an answer, which is the reference.
        max_new_tokens: Where an answer is cut.

    Returns:
        The fraction of answers that end with a stop token (None: no prompt fits the context), and
        a few samples.
    """
    if not conversations:
        return None, []
    context = model.config.context
    encoded = chat.prompts([messages[:-1] for messages in conversations])
    fitting = [
        (messages, ids)
        for messages, ids in zip(conversations, encoded, strict=True)
        if len(ids) < context
    ]
    if not fitting:
        return None, []
    prompts = [ids for _, ids in fitting]
    generated = generate(model, prompts, max_new_tokens=max_new_tokens, stop=chat.stop_ids)
    stopped = 0
    samples: list[dict[str, Any]] = []
    for (messages, ids), answer in zip(fitting, generated, strict=True):
        # The model does not read the last token of an answer: a full context leaves one more.
        is_cut = len(answer) >= max_new_tokens or len(ids) + len(answer) > context
        stopped += not is_cut
        if len(samples) < SAMPLES:
            sample = {
                "prompt": messages[-2]["content"],
                "answer": chat.text(answer),
                "reference": messages[-1]["content"],
            }
            samples.append(sample)
    return stopped / len(generated), samples


def _nothing_left(conversations: Artifact, found: ExampleSets, context: int) -> InputError:
    counts = [f"{count} {reason}" for reason, count in found.rejected.most_common()]
    rejected = ", ".join(counts) or "none was rejected"
    return InputError(
        f"{conversations}",
        f"0 of {conversations.rows('conversations')} conversations can be trained on: {rejected}, "
        f"{len(found.heldout)} are held out (the model's context is {context} tokens)",
        "give collect_chats more documents, a smaller limits.max_chars or a smaller heldout_share; "
        "or a model with a longer context",
    )
