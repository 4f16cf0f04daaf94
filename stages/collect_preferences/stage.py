"""collect_preferences: a checkpoint after sft, conversations and the user's files → pairs of a better and a worse answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial

from data_contracts import Artifact, ConfigError, Draft, InputError
from stages.collect_preferences.config import CollectPreferencesConfig
from stages.collect_preferences.prompts import Asked, choose
from stages.collect_preferences.similarity import similarity
from stages.collect_preferences.user_pairs import Turns, read_pairs
from stages.digests import digest, seed_for
from stages.lm.chat import ChatFormat
from stages.lm.checkpoint import load_model
from stages.lm.generate import generate
from stages.lm.precision import device_of, set_threads
from stages.report import Facts, Report

AT_ONCE = 1024  # prompts of one call of generate; fixed, so that seeds do not depend on batch_size
SAMPLES = 3


def run(
    config: CollectPreferencesConfig,
    *,
    checkpoint: Artifact | None = None,
    conversations: Artifact | None = None,
    out: Draft,
    report: Report,
) -> Facts:
    """Chosen is the human answer, rejected the model's own; pairs whose answers are too alike are refused and counted.

    checkpoint, conversations: who is asked, and what; not read if `prompts` is 0.
    Raises ConfigError if the model is to be asked and one of them is missing, InputError if no pair comes out.
    """
    asked: list[Asked] = []
    answers: Iterator[tuple[Asked, str, str]] = iter(())
    if config.prompts:
        if checkpoint is None or conversations is None:
            raise _nobody_to_ask(
                config.prompts, {"checkpoint": checkpoint, "conversations": conversations}
            )
        asked = choose(
            conversations, config.prompts, config.kinds, config.heldout_share, config.seed
        )
        answers = answered(asked, checkpoint, config, report)
    book = _Book(out, config.similarity)
    with book:
        for one, said, reason in answers:
            if reason:
                book.refuse(
                    one.conversation,
                    said or one.prompt[-1]["content"],
                    reason,
                    f"the model's answer to: {one.prompt[-1]['content'][:200]}",
                )
            else:
                book.add(
                    one.prompt,
                    one.answer,
                    said,
                    "model",
                    one.split,
                    one.conversation,
                    one.conversation,
                )
        for path in config.files:
            for pair in read_pairs(path):
                if pair.reason:
                    book.refuse(pair.address, pair.content, pair.reason, pair.detail)
                else:
                    held = (
                        seed_for(config.seed, "heldout", *(turn["content"] for turn in pair.prompt))
                        < config.heldout_share * 2**63
                    )
                    book.add(
                        pair.prompt,
                        pair.chosen,
                        pair.rejected,
                        "user",
                        "heldout" if held else "train",
                        None,
                        pair.address,
                    )
    if not book.pairs.total():
        told = (
            ", ".join(f"{count} {reason}" for reason, count in book.rejected.most_common())
            or "no prompt was found"
        )
        raise InputError(
            "collect_preferences", f"0 pairs from {len(asked)} prompts and {len(config.files)} files: {told}",
            "raise prompts or similarity, train sft for longer, or give files",
        )  # fmt: skip
    return Facts(
        figures={
            "prompts": len(asked),
            "pairs": book.pairs.total(),
            "heldout": book.pairs["heldout"],
            "dropped": book.rejected.total(),
        },
        rejected=dict(sorted(book.rejected.items())),
        samples=book.samples,
    )


def answered(
    asked: list[Asked], checkpoint: Artifact, config: CollectPreferencesConfig, report: Report
) -> Iterator[tuple[Asked, str, str]]:
    """(what was asked, the model's answer, why the answer cannot be used or ""). Progress is told at every batch."""
    if not asked:
        return
    set_threads(config.compute)
    model, chat = load_model(checkpoint, device_of()), ChatFormat(checkpoint)
    for done in range(0, len(asked), AT_ONCE):
        some = asked[done : done + AT_ONCE]
        prompts = chat.prompts([one.prompt for one in some])
        refused = [
            _unaskable(one, prompt, chat, model.config.context - config.max_new_tokens)
            for one, prompt in zip(some, prompts, strict=True)
        ]
        tell = partial(_tell, report, len(asked), done + sum(map(bool, refused)))
        said = iter(
            generate(
                model, [prompt for prompt, reason in zip(prompts, refused, strict=True) if not reason],
                max_new_tokens=config.max_new_tokens, stop=chat.stop_ids, temperature=config.temperature, top_p=config.top_p,
                seed=seed_for(config.seed, "answers", done), batch_size=config.batch_size, on_batch=tell,
            )
        )  # fmt: skip
        for one, reason in zip(some, refused, strict=True):
            if reason:
                yield one, "", reason
                continue
            ids = next(said)
            cut = len(ids) == config.max_new_tokens and not config.keep_unfinished
            yield one, chat.text(ids), "unfinished" if cut else ""
        _tell(report, len(asked), done, len(some))


def _tell(report: Report, total: int, before: int, answered: int) -> None:
    report.progress(before + answered, total, "prompts")


def _nobody_to_ask(prompts: int, inputs: dict[str, Artifact | None]) -> ConfigError:
    missing = " and ".join(name for name, given in inputs.items() if given is None)
    return ConfigError(
        "stage collect_preferences",
        f"prompts is {prompts}, so the model is asked; that needs {missing}",
        "add checkpoint=NAME/sft_checkpoint conversations=NAME/conversations   or, for pairs of your own alone: --set prompts=0 "
        "--set 'files=[\"pairs.jsonl\"]'",
    )


def _unaskable(one: Asked, prompt: list[int], chat: ChatFormat, room: int) -> str:
    """Why the model cannot be asked this, or ""."""
    if chat.special_token_in(one.prompt):
        return "special_token_in_text"
    return "too_long" if len(prompt) > room else ""


class _Book:
    """Writes pairs and rejects, and counts."""

    def __init__(self, out: Draft, similarity: float):
        self._pairs, self._rejects, self._similarity = (
            out.writer("pairs"),
            out.writer("rejects"),
            similarity,
        )
        self._seen: set[str] = set()
        self.pairs: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()
        self.samples: list[dict[str, str]] = []

    def __enter__(self) -> _Book:
        return self

    def __exit__(self, *_: object) -> None:
        self._pairs.close()
        self._rejects.close()

    def add(
        self,
        prompt: Turns,
        chosen: str,
        rejected: str,
        kind: str,
        split: str,
        conversation: str | None,
        address: str,
    ) -> None:
        name = digest(
            *(part for turn in prompt for part in (turn["role"], turn["content"])),
            "chosen",
            chosen,
            "rejected",
            rejected,
        )
        if reason := self._unusable(chosen, rejected):
            self.refuse(address, rejected or chosen, reason, f"chosen is: {chosen[:200]}")
        elif name in self._seen:
            self.refuse(address, rejected, "duplicate", "the same pair was there before")
        else:
            self._seen.add(name)
            row = {
                "prompt": prompt,
                "chosen": chosen,
                "rejected": rejected,
                "kind": kind,
                "split": split,
            }
            self._pairs.write([row | {"id": name, "conversation": conversation}])
            self.pairs[split] += 1
            if len(self.samples) < SAMPLES:
                self.samples.append(
                    {"prompt": prompt[-1]["content"], "chosen": chosen, "rejected": rejected}
                )

    def refuse(self, address: str, content: str, reason: str, detail: str) -> None:
        self.rejected[reason] += 1
        self._rejects.write(
            [{"conversation": address, "content": content, "reason": reason, "detail": detail}]
        )

    def _unusable(self, chosen: str, rejected: str) -> str | None:
        if not rejected:
            return "empty_answer"
        a, b = " ".join(chosen.split()).casefold(), " ".join(rejected.split()).casefold()
        if a == b:
            return "equal"
        return "nearly_equal" if similarity(a, b) >= self._similarity else None
