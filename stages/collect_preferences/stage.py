"""A checkpoint after sft, conversations and the user's files → preferences.

Each row is a pair of a better and a worse answer.
"""

from __future__ import annotations

from data_contracts import Artifact, ConfigError, Draft, InputError
from stages.collect_preferences.answers import answer_prompts
from stages.collect_preferences.config import CollectPreferencesConfig
from stages.collect_preferences.pairs import PairWriter
from stages.collect_preferences.prompts import AnsweredPrompt, choose
from stages.collect_preferences.user_pairs import read_pairs
from stages.report import Facts, Report
from stages.text.heldout import split_of


def run(
    config: CollectPreferencesConfig,
    *,
    checkpoint: Artifact | None = None,
    conversations: Artifact | None = None,
    out: Draft,
    report: Report,
) -> Facts:
    """Pair the human answer (chosen) with the model's own (rejected), and add the user's pairs.

    Pairs whose answers are too alike are rejected and counted.

    Args:
        config: The settings.
        checkpoint: The model that answers. It is not read if `config.prompts` is 0.
        conversations: The prompts and the human answers. Not read if `config.prompts` is 0.
        out: The draft that is written to.
        report: Receives the progress.

    Raises:
        ConfigError: The model should answer, but `checkpoint` or `conversations` is missing.
        InputError: There is not one pair.
    """
    prompts: list[AnsweredPrompt] = []
    if config.prompts:
        if checkpoint is None or conversations is None:
            raise _missing_input(config.prompts, checkpoint, conversations)
        prompts = choose(
            conversations, config.prompts, config.kinds, config.heldout_share, config.seed
        )
    with PairWriter(out, config.similarity) as writer:
        if checkpoint and prompts:
            _add_model_pairs(writer, prompts, checkpoint, config, report)
        for path in config.files:
            _add_user_pairs(writer, path, config)
    if not writer.pairs.total():
        counts = [f"{count} {reason}" for reason, count in writer.rejected.most_common()]
        why = ", ".join(counts) or "no prompt was found"
        raise InputError(
            "collect_preferences",
            f"0 pairs from {len(prompts)} prompts and {len(config.files)} files: {why}",
            "raise prompts or similarity, train sft for longer, or give files",
        )
    return Facts(
        figures={
            "prompts": len(prompts),
            "pairs": writer.pairs.total(),
            "heldout": writer.pairs["heldout"],
            "dropped": writer.rejected.total(),
        },
        rejected=dict(sorted(writer.rejected.items())),
        samples=writer.samples,
    )


def _missing_input(
    prompts: int, checkpoint: Artifact | None, conversations: Artifact | None
) -> ConfigError:
    inputs = {"checkpoint": checkpoint, "conversations": conversations}
    missing = " and ".join(name for name, artifact in inputs.items() if artifact is None)
    return ConfigError(
        "stage collect_preferences",
        f"prompts is {prompts}, so the model is asked; that needs {missing}",
        "add checkpoint=NAME/sft_checkpoint conversations=NAME/conversations"
        "   or, for pairs of your own alone: --set prompts=0 --set 'files=[\"pairs.jsonl\"]'",
    )


def _add_model_pairs(
    writer: PairWriter,
    prompts: list[AnsweredPrompt],
    checkpoint: Artifact,
    config: CollectPreferencesConfig,
    report: Report,
) -> None:
    for answer in answer_prompts(prompts, checkpoint, config, report):
        prompt = answer.prompt
        if answer.reason:
            detail = f"the model's answer to: {prompt.question[:200]}"
            content = answer.text or prompt.question
            writer.reject(prompt.conversation, content, answer.reason, detail)
            continue
        writer.add(
            prompt.prompt,
            prompt.answer,
            answer.text,
            kind="model",
            split=prompt.split,
            conversation=prompt.conversation,
            address=prompt.conversation,
        )


def _add_user_pairs(writer: PairWriter, path: str, config: CollectPreferencesConfig) -> None:
    for pair in read_pairs(path):
        if pair.reason:
            writer.reject(pair.address, pair.content, pair.reason, pair.detail)
            continue
        texts = [turn["content"] for turn in pair.prompt]
        writer.add(
            pair.prompt,
            pair.chosen,
            pair.rejected,
            kind="user",
            split=split_of(config.seed, config.heldout_share, *texts),
            conversation=None,
            address=pair.address,
        )
