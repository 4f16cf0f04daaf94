"""Lets the model answer the chosen prompts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from data_contracts import Artifact
from stages.collect_preferences.config import CollectPreferencesConfig
from stages.collect_preferences.prompts import AnsweredPrompt
from stages.digests import seed_for
from stages.lm.chat import ChatFormat
from stages.lm.checkpoint import load_model
from stages.lm.generate import generate
from stages.lm.model import LanguageModel
from stages.lm.precision import device_of, set_threads
from stages.lm.tokenizer import ModelTokenizer
from stages.report import Report

CHUNK = 1024  # prompts of one call of generate; fixed, so that seeds do not depend on batch_size


@dataclass(frozen=True)
class ModelAnswer:
    """The model's answer to a prompt.

    Attributes:
        prompt: The conversation that it answers.
        text: The answer; empty if the model was not asked.
        reason: Why the answer cannot be used, as a short name; empty if it can.
    """

    prompt: AnsweredPrompt
    text: str
    reason: str = ""


def answer_prompts(
    prompts: list[AnsweredPrompt],
    checkpoint: Artifact,
    config: CollectPreferencesConfig,
    report: Report,
) -> Iterator[ModelAnswer]:
    """Yield the model's answer to each prompt, in order.

    Args:
        prompts: What the model is asked.
        checkpoint: The model, after sft.
        config: The settings of sampling.
        report: Receives the progress of every batch.
    """
    if not prompts:
        return
    set_threads(config.compute)
    model = load_model(checkpoint, device_of())
    chat = ChatFormat(ModelTokenizer(checkpoint))
    for start in range(0, len(prompts), CHUNK):
        yield from _answer_chunk(model, chat, prompts, start, config, report)


def _answer_chunk(
    model: LanguageModel,
    chat: ChatFormat,
    prompts: list[AnsweredPrompt],
    start: int,
    config: CollectPreferencesConfig,
    report: Report,
) -> Iterator[ModelAnswer]:
    """Yield the answers to the prompts from number `start` on, `CHUNK` of them."""
    chunk = prompts[start : start + CHUNK]
    encoded = chat.prompts([prompt.prompt for prompt in chunk])
    max_prompt_tokens = model.config.context - config.max_new_tokens
    reasons = []
    usable = []
    for prompt, token_ids in zip(chunk, encoded, strict=True):
        reason = _reason_not_to_ask(prompt, token_ids, chat, max_prompt_tokens)
        reasons.append(reason)
        if not reason:
            usable.append(token_ids)
    done_before = start + len(chunk) - len(usable)

    def report_batch(answered: int) -> None:
        report.progress(done_before + answered, len(prompts), "prompts")

    generated = generate(
        model,
        usable,
        max_new_tokens=config.max_new_tokens,
        stop=chat.stop_ids,
        temperature=config.temperature,
        top_p=config.top_p,
        seed=seed_for(config.seed, "answers", start),
        batch_size=config.batch_size,
        on_batch=report_batch,
    )
    answers = iter(generated)
    for prompt, reason in zip(chunk, reasons, strict=True):
        if reason:
            yield ModelAnswer(prompt, "", reason)
            continue
        token_ids = next(answers)
        is_cut = len(token_ids) == config.max_new_tokens
        reason = "unfinished" if is_cut and not config.keep_unfinished else ""
        yield ModelAnswer(prompt, chat.text(token_ids), reason)
    report.progress(start + len(chunk), len(prompts), "prompts")


def _reason_not_to_ask(
    prompt: AnsweredPrompt, token_ids: list[int], chat: ChatFormat, max_tokens: int
) -> str:
    """Return why the model cannot be asked, as a short name; empty if it can."""
    if chat.special_token_in(prompt.prompt):
        return "special_token_in_text"
    return "too_long" if len(token_ids) > max_tokens else ""
