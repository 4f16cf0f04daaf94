"""pretrain: token shards and their tokenizer → a base checkpoint."""

from __future__ import annotations

from torch import Tensor

from data_contracts import Artifact, Draft
from stages.digests import seed_for
from stages.lm.checkpoint import check_tokenizer, write_checkpoint
from stages.lm.config import ModelConfig
from stages.lm.loss import balance_loss, token_loss
from stages.lm.model import LanguageModel
from stages.lm.parallel.collectives import main_process_first
from stages.lm.parallel.fsdp import shard_model
from stages.lm.parallel.launch import distributed
from stages.lm.tokenizer import ModelTokenizer
from stages.lm.training.batches import Batch, TokenStream, Windows
from stages.lm.training.loop import Fitted, fit
from stages.lm.training.step import Loss, LossFunction
from stages.pretrain.config import PretrainConfig
from stages.pretrain.heldout import Heldout
from stages.report import Facts, Report


@distributed("pretrain")
def run(
    config: PretrainConfig,
    *,
    token_shards: Artifact,
    tokenizer: Artifact,
    out: Draft,
    report: Report,
) -> Facts:
    """Train from random weights to predict the next token of the shuffled token stream.

    Args:
        config: The settings of the stage.
        token_shards: What to train and evaluate on.
        tokenizer: The tokenizer that the shards were made with.
        out: The draft of the checkpoint.
        report: Receives progress, metrics and notes.

    Raises:
        ArtifactError: The shards were not made with this tokenizer.
        InputError: There are too few tokens.
    """
    vocab_size = check_tokenizer(token_shards, tokenizer)
    parsed_tokenizer = ModelTokenizer(tokenizer)
    sizes = ModelConfig(vocab_size=vocab_size, **config.model.model_dump())
    with main_process_first():
        stream = TokenStream.open(token_shards, "train", out.scratch / "tokens", vocab_size)
    windows = Windows(
        stream,
        sizes.context,
        config.training.batch_size,
        config.seed,
        segments=not config.attend_across_documents,
    )
    heldout = Heldout.read(token_shards, config.heldout_tokens)

    model = LanguageModel(sizes)
    model.initialize(seed_for(config.seed, "weights"))
    model = shard_model(model, config.compute)
    result = fit(
        model,
        windows,
        next_token_loss(config.training.stability.z_loss),
        training=config.training,
        compute=config.compute,
        steps=config.training.steps(sizes.context, windows.rows_per_epoch),
        scratch=out.scratch,
        report=report,
        guard={"seed": config.seed, "shards": token_shards.id},
        evaluate=heldout.score,
    )
    write_checkpoint(out, model, parsed_tokenizer, result.metrics)
    return _facts(result, len(stream), heldout)


def _facts(result: Fitted, train_tokens: int, heldout: Heldout) -> Facts:
    last = result.metrics[-1]
    figures = {
        "heldout_bits_per_byte": last["heldout_bits_per_byte"],
        "heldout_loss": last["heldout_loss"],
        **result.figures,
        "train_tokens": train_tokens,
        "heldout_bytes": heldout.bytes,
    }
    return Facts(figures=figures, notes=result.notes)


def next_token_loss(z_loss: float) -> LossFunction:
    """Return a loss: the cross-entropy of every token, plus load balancing if sparse.

    Args:
        z_loss: Weight of the z-loss; see `stages.lm.loss.token_loss`.
    """

    def loss(model: LanguageModel, batch: Batch) -> Loss:
        labels_BT = batch["labels"]

        def head(hidden_BTD: Tensor, weight_VD: Tensor) -> tuple[Tensor, Tensor]:
            return token_loss(hidden_BTD, weight_VD, labels_BT, z_loss, all_count=True)

        total, plain = model(batch["ids"], head, segments_BT=batch.get("segments"))
        balance = balance_loss(model.balance_B, labels_BT.shape[1])
        tokens = labels_BT.numel()
        return Loss(total + balance, weight=tokens, tokens=tokens, figures={"loss": plain})

    return loss
