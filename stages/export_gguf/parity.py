"""Is the GGUF file the same model? Ids, greedy text and whole distributions of llama.cpp beside those of torch.

Shapes: P positions, V vocabulary, T tokens.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig

from data_contracts import ContractError, GroundupError
from stages.digests import seed_for
from stages.export_gguf.corpus import nasty_strings
from stages.export_gguf.vocabulary import Vocabulary
from stages.llama_cpp import engine as llama_cpp
from stages.lm import transformers_model
from stages.lm.chat import chat_template

LEAST = -100.0  # log-probabilities that llama.cpp rounds to nothing, in nats
TIE = 0.1  # nats between two tokens that 16-bit sums may swap
TIMEOUT = 3600.0


@dataclass(frozen=True)
class Compared:
    """How far one file is from torch. kl in nats per position. mismatches: the strings or chats with other ids, as sentences."""

    kl: float
    top1: float
    positions: int
    same_greedy_text: bool
    beyond_a_tie: bool
    mismatches: list[str]


class Reference:
    """The model in torch (transformers' own class, float32, CPU) and its answers to what llama.cpp will be asked."""

    def __init__(
        self,
        folder: Path,
        vocabulary: Vocabulary,
        prompts: Sequence[str],
        new_tokens: int,
        positions: int,
        seed: int,
    ):
        self._model, tokenizer = transformers_model.load(folder)
        self._model.generation_config = (
            GenerationConfig()
        )  # the checkpoint's own would fill what is not said in `_continue`
        # a router picks experts by rank: the smallest rounding may swap two of them, and the text goes another way
        self._sparse = self._model.config.model_type == "qwen3_moe"
        self._stops = {vocabulary.end, vocabulary.end_of_turn}
        self.size = len(vocabulary.tokens)
        self.strings = nasty_strings(tokenizer.all_special_tokens)
        tokenizer.backend_tokenizer.encode_special_tokens = (
            True  # what looks like a special token is text here
        )
        self.string_ids = [
            tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
            for text in self.strings
        ]
        tokenizer.backend_tokenizer.encode_special_tokens = False
        self.chats: list[list[dict[str, str]]] = [
            [{"role": "user", "content": prompt}] for prompt in prompts
        ]
        self.chats.append(
            [*self.chats[0], {"role": "assistant", "content": "Yes: a b.\n"}, *self.chats[-1]]
        )
        rendered = chat_template(folder).render(self.chats, prompt=True)
        encodings = tokenizer.backend_tokenizer.encode_batch(
            [chat.text for chat in rendered], add_special_tokens=False
        )
        self.chat_ids: list[list[int]] = [encoding.ids for encoding in encodings]
        context = self._model.config.max_position_embeddings
        self.new_tokens = min(new_tokens, context // 2)
        self.prompts = [ids[-(context - self.new_tokens) :] for ids in self.chat_ids[:-1]]
        self.greedy = [self._continue(prompt, self.new_tokens) for prompt in self.prompts]
        sampled = self._sampled(positions, context, seed)
        self.prefixes = [
            whole[:end] for whole, start in sampled for end in range(start, len(whole) + 1)
        ]
        self.log_probabilities_PV = np.concatenate(
            [self._log_probabilities(whole)[start - 1 :] for whole, start in sampled]
        )

    def _sampled(self, positions: int, context: int, seed: int) -> list[tuple[list[int], int]]:
        """Texts that the model itself makes likely, with the length of the prompt in each: `positions` contexts in all."""
        each = min(-(-positions // len(self.prompts)), context // 2)
        texts = []
        for number, prompt in enumerate(self.prompts):
            count = min(each, positions - number * each)
            if count > 0:
                start = prompt[-(context - count) :]
                texts.append(
                    (
                        start
                        + self._continue(start, count - 1, seed_for(seed, "export_gguf", number)),
                        len(start),
                    )
                )
        return texts

    def _continue(self, prompt: list[int], tokens: int, seed: int | None = None) -> list[int]:
        """The most likely continuation up to a stop token, or with a seed a sampled one of just so many tokens."""
        if tokens == 0:
            return []
        how: dict[str, Any] = (
            {"do_sample": True, "top_k": 0}
            if seed is not None
            else {"eos_token_id": sorted(self._stops)}
        )
        config = GenerationConfig(max_new_tokens=tokens, pad_token_id=0, **how)
        ids = torch.tensor([prompt])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed or 0)
            made = self._model.generate(
                ids, generation_config=config, attention_mask=torch.ones_like(ids)
            )
        return list(
            takewhile(
                lambda token: seed is not None or token not in self._stops,
                made[0, len(prompt) :].tolist(),
            )
        )

    @torch.inference_mode()
    def _log_probabilities(self, ids: list[int]) -> np.ndarray:
        """[T, V] in float64."""
        return self._model(torch.tensor([ids])).logits[0].double().log_softmax(-1).numpy()

    def questions(self, gguf: Path, threads: int) -> dict[str, Any]:
        """What to ask llama.cpp, as plain JSON."""
        return {
            "gguf": str(gguf), "threads": threads, "strings": self.strings, "chats": self.chats, "prompts": self.prompts,
            "tokens": self.new_tokens, "prefixes": self.prefixes, "vocabulary": self.size,
        }  # fmt: skip

    def compare(self, ids: dict[str, list[list[int]]], other_PV: np.ndarray) -> Compared:
        """Beside the answers of llama.cpp: `ids` as `llama_cpp.reply` gives them, `other_PV` natural logarithms."""
        mine_PV = self.log_probabilities_PV
        kl_P = (np.exp(mine_PV) * (mine_PV - np.maximum(other_PV, LEAST))).sum(-1)
        asked = [
            *zip(
                map(str, [*self.strings, *self.chats]),
                [*self.string_ids, *self.chat_ids],
                [*ids["strings"], *ids["chats"]],
                strict=True,
            )
        ]
        kl = float(kl_P.mean())
        mismatches = [
            f"{what!r}: torch {mine}, llama.cpp {other}"
            for what, mine, other in asked
            if mine != other
        ]
        theirs = [
            list(takewhile(lambda token: token not in self._stops, text)) for text in ids["greedy"]
        ]
        gaps = [
            self._gap(prompt, mine, other)
            for prompt, mine, other in zip(self.prompts, self.greedy, theirs, strict=True)
        ]
        return Compared(
            kl=0.0 if kl < 0 else kl,  # rounding may end below 0; NaN must stay NaN, for a limit to refuse
            top1=float((mine_PV.argmax(-1) == other_PV.argmax(-1)).mean()), positions=len(kl_P),
            same_greedy_text=self.greedy == theirs, beyond_a_tie=max(gaps) > TIE and not self._sparse, mismatches=mismatches,
        )  # fmt: skip

    def _gap(self, prompt: list[int], mine: list[int], theirs: list[int]) -> float:
        """How many nats torch finds between the two tokens where two greedy texts part; 0 if they do not."""
        if mine == theirs:
            return 0.0
        same = len(
            list(takewhile(lambda pair: pair[0] == pair[1], zip(mine, theirs, strict=False)))
        )
        logs_V = self._log_probabilities(prompt + mine[:same])[-1]
        stop = max(logs_V[token] for token in self._stops)
        first, second = (
            logs_V[text[same]] if same < len(text) else stop for text in (mine, theirs)
        )
        return float(abs(first - second))


def ask(questions: dict[str, Any], scratch: Path) -> tuple[dict[str, Any], np.ndarray]:
    """The answers of llama.cpp in a child process: (ids, log-probabilities [P, V]).

    Raises ContractError with the end of its log if it refuses or dies, GroundupError if it does not come to an end.
    """
    asked, answered = scratch / "questions.json", scratch / "answers.npz"
    asked.write_text(json.dumps(questions), "utf-8")
    command = [sys.executable, "-P", llama_cpp.__file__, str(asked), str(answered)]
    name, log = Path(questions["gguf"]).name, scratch / "llama.log"
    with (
        log.open("wb") as said,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=said
        ) as child,
    ):
        try:
            status = child.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            child.kill()
            raise GroundupError(
                name,
                f"llama.cpp (xllamacpp) was not done after {TIMEOUT:g} seconds: {_end(log)}",
                "nothing was published; set export_gguf.positions and new_tokens lower, or threads higher",
            ) from None
        except BaseException:
            child.kill()
            raise
    if status:
        raise ContractError(
            name,
            f"llama.cpp (xllamacpp) ended with status {status}: {_end(log)}",
            "nothing was published; report the log above",
        )
    with np.load(answered) as answers:
        return json.loads(str(answers["ids"])), answers["log_probabilities_PV"]


def _end(log: Path) -> str:
    return log.read_text("utf-8", "replace").strip()[-800:] or "its log is empty"
