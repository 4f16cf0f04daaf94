"""sft: a base checkpoint and conversations → a checkpoint that answers and stops."""

from __future__ import annotations

from typing import Any

from data_contracts import Artifact, Draft, InputError
from stages.lm.chat import ChatFormat
from stages.lm.checkpoint import load_model, special_ids, write_checkpoint
from stages.lm.generate import generate
from stages.lm.loss import balance_loss, token_loss
from stages.lm.model import LanguageModel
from stages.lm.parallel import collectives, fsdp
from stages.lm.parallel.launch import distributed
from stages.lm.precision import device_of
from stages.lm.training.batches import Batch
from stages.lm.training.loop import fit
from stages.lm.training.step import Loss, LossFunction
from stages.report import Facts, Report
from stages.sft import examples
from stages.sft.config import SftConfig
from stages.sft.examples import Read
from stages.sft.packing import PackedChats
from stages.sft.replay import WithReplay, replayed_rows, windows

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
    """Train on the assistant's tokens only, conversations packed into rows that do not see each other.

    token_shards: what `replay` takes its rows from; not read without it.
    Raises InputError if no conversation is left to train on, ConfigError if there is nothing to replay.
    """
    chat = ChatFormat(checkpoint)
    model = load_model(checkpoint)
    sizes, pad = model.config, special_ids(checkpoint)["pad_token_id"] or 0
    found = examples.read(conversations, chat, sizes.context, config.repeat)
    if not found.train:
        raise _nothing_left(conversations, found, sizes.context)
    heldout_rows = sorted(found.heldout, key=lambda row: row[0].name)[
        : config.heldout_conversations
    ]
    replayed = replayed_rows(config.replay, config.training.batch_rows)
    chats = PackedChats(
        found.train, sizes.context, config.training.batch_rows - replayed, config.seed, pad
    )
    batches: PackedChats | WithReplay = chats
    if replayed:
        with collectives.main_process_first():
            pages = windows(
                config.replay,
                replayed,
                token_shards,
                checkpoint,
                out.scratch,
                sizes.context,
                config.seed,
            )
        batches = WithReplay(chats, pages, config.training.batch_rows)
    heldout = PackedChats(
        [example for example, _ in heldout_rows], sizes.context, 1, config.seed, pad
    )
    steps = config.training.steps(batches.tokens_per_row, batches.rows_per_epoch)

    model = fsdp.shard_model(model, config.compute)
    result = fit(
        model, batches, answer_loss(config.training.z_loss), training=config.training, compute=config.compute, steps=steps,
        scratch=out.scratch, report=report, evaluate=(lambda model: score(model, heldout)) if heldout_rows else None,
        guard={"seed": config.seed, "checkpoint": checkpoint.id, "conversations": conversations.id, "replay": config.replay},
    )  # fmt: skip
    write_checkpoint(out, model, checkpoint, result.metrics, chat.stop_ids)
    if not collectives.is_main_process():
        return Facts()

    model = load_model(out.files, device_of())
    prompts = heldout_rows[: config.answers]
    stops, samples = answers(
        model, chat, [messages for _, messages in prompts], config.max_new_tokens
    )
    figures = {
        "heldout_loss": result.metrics[-1].get("heldout_loss"), "stops": stops, "answered": len(prompts),
        "conversations": len({example.name for example in found.train}), "heldout_conversations": len(heldout_rows),
        "assistant_tokens": chats.answer_tokens, "rows": chats.rows_per_epoch, "filled": round(chats.filled, 3),
        "shortened": found.shortened, "dropped": found.rejected.total(), **result.figures,
    }  # fmt: skip
    return Facts(
        figures=figures,
        rejected=dict(sorted(found.rejected.items())),
        samples=samples,
        notes=result.notes,
    )


def answer_loss(z_loss: float) -> LossFunction:
    """Cross-entropy of the assistant's tokens, for `fit`."""

    def loss(model: LanguageModel, batch: Batch) -> Loss:
        labels, segments, real = batch["labels"], batch["segments"], batch["segments"] > 0
        total, plain = model(
            batch["ids"],
            lambda hidden, table: token_loss(hidden, table, labels, z_loss),
            segments_BT=segments,
            real_BT=real,
        )
        counted_B = (labels >= 0).sum(1)
        return Loss(
            total + balance_loss(model.balance_B, counted_B),
            counted_B.sum(),
            real.sum(),
            {"loss": plain},
        )

    return loss


def score(model: LanguageModel, heldout: PackedChats) -> dict[str, float]:
    """{"heldout_loss": nats per assistant token}."""
    nats, device = 0.0, model.head_weight.device
    for start in range(0, heldout.rows_per_epoch, ROWS_AT_ONCE):
        batch = {
            name: tensor.to(device)
            for name, tensor in heldout.at(slice(start, start + ROWS_AT_ONCE)).items()
        }
        nats += float(
            model(
                batch["ids"],
                lambda hidden, table, y=batch["labels"]: token_loss(hidden, table, y)[1],
                segments_BT=batch["segments"],
            )
        )
    return {"heldout_loss": nats / heldout.answer_tokens}


def answers(
    model: LanguageModel, chat: ChatFormat, conversations: list[Any], max_new_tokens: int
) -> tuple[float | None, list[dict[str, Any]]]:
    """Greedy answers to the last question of each conversation: the share that ends with an end token, and a few to look at."""
    asked = [(messages, ids) for messages, ids in zip(conversations, chat.prompts([m[:-1] for m in conversations]), strict=True)
             if len(ids) < model.config.context] if conversations else []  # fmt: skip
    if not asked:
        return None, []
    said = generate(
        model, [ids for _, ids in asked], max_new_tokens=max_new_tokens, stop=chat.stop_ids
    )
    stopped = [  # the last token of a full context needs no place in it
        len(ids) + len(answer) <= model.config.context and len(answer) < max_new_tokens
        for (_, ids), answer in zip(asked, said, strict=True)
    ]
    samples = [
        {
            "prompt": messages[-2]["content"],
            "answer": chat.text(answer),
            "reference": messages[-1]["content"],
        }
        for (messages, _), answer in zip(asked[:SAMPLES], said, strict=False)
    ]
    return sum(stopped) / len(stopped), samples


def _nothing_left(conversations: Artifact, found: Read, context: int) -> InputError:
    told = (
        ", ".join(f"{count} {reason}" for reason, count in found.rejected.most_common())
        or "none was refused"
    )
    return InputError(
        f"{conversations}",
        f"0 of {conversations.rows('conversations')} conversations can be trained on: {told}, {len(found.heldout)} are held out "
        f"(the model's context is {context} tokens)",
        "give collect_chats more documents, a smaller max_chars or a smaller heldout_share; or a model with a longer context",
    )
