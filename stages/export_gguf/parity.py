"""Is the GGUF file the same model? Compares llama.cpp with torch: ids, greedy text, distributions.

Shapes: P positions, V vocabulary, T tokens.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig

from data_contracts import ContractError, GroundupError
from data_contracts.model_families import FAMILIES
from stages.digests import seed_for
from stages.export_gguf.corpus import nasty_strings
from stages.export_gguf.vocabulary import Vocabulary
from stages.llama_cpp import engine as llama_cpp
from stages.lm import transformers_model
from stages.lm.tokenizer import ModelTokenizer

MIN_LOG_PROBABILITY = -100.0  # nats; llama.cpp rounds what is less to nothing
TIE = 0.1  # nats between two tokens that 16-bit sums may swap
TIMEOUT = 3600.0
SHOWN_LOG = 800  # characters


@dataclass(frozen=True)
class Compared:
    """How far one file is from torch.

    Attributes:
        kl: KL(torch || llama.cpp), in nats per position.
        top1: The share of positions at which both have the same most likely token.
        positions: How many positions were compared.
        same_greedy_text: Whether all greedy texts are the same.
        beyond_a_tie: Whether two greedy texts differ where torch is not in doubt.
        mismatches: The strings or chats that have other ids, as sentences.
    """

    kl: float
    top1: float
    positions: int
    same_greedy_text: bool
    beyond_a_tie: bool
    mismatches: list[str]


class Reference:
    """The model in torch, and its answers to what llama.cpp will be asked.

    It runs in transformers' own class, in float32, on the CPU.
    """

    def __init__(
        self,
        tokenizer: ModelTokenizer,
        vocabulary: Vocabulary,
        prompts: Sequence[str],
        new_tokens: int,
        positions: int,
        seed: int,
    ):
        """
        Args:
            tokenizer: The tokenizer of the checkpoint, beside the model.
            vocabulary: Its vocabulary.
            prompts: What a user says, for the comparison of greedy text.
            new_tokens: Tokens of greedy text after each prompt.
            positions: Positions at which to compare distributions.
            seed: Seed of the text in which these positions are.
        """
        self._model, fast = transformers_model.load(tokenizer.folder, tokenizer)
        # the checkpoint's own would fill in what `_continue` does not set
        self._model.generation_config = GenerationConfig()
        # A router picks experts by rank. The smallest rounding may swap two of them, and then the
        # text takes another course.
        self._is_sparse = FAMILIES[self._model.config.model_type].has_experts
        self._stops = {vocabulary.end, vocabulary.end_of_turn}
        self.size = len(vocabulary.tokens)

        self.strings = nasty_strings(fast.all_special_tokens)
        # in these strings, text that spells a special token is text
        fast.backend_tokenizer.encode_special_tokens = True
        self.string_ids = _encode(fast, self.strings)

        self.chats = _chats(prompts)
        rendered = tokenizer.chat_template().render(self.chats, prompt=True)
        encodings = tokenizer.encode([chat.text for chat in rendered])
        self.chat_ids = [encoding.ids for encoding in encodings]

        context = self._model.config.max_position_embeddings
        self.new_tokens = min(new_tokens, context // 2)
        self.prompts = [ids[-(context - self.new_tokens) :] for ids in self.chat_ids[:-1]]
        self.greedy = [self._continue(prompt, self.new_tokens) for prompt in self.prompts]

        self.prefixes: list[list[int]] = []
        log_probabilities = []
        for ids, start in self._sampled(positions, context, seed):
            self.prefixes += [ids[:end] for end in range(start, len(ids) + 1)]
            log_probabilities.append(self._log_probabilities(ids)[start - 1 :])
        self.log_probabilities_PV = np.concatenate(log_probabilities)

    def _sampled(self, positions: int, context: int, seed: int) -> list[tuple[list[int], int]]:
        """Return the texts that the model itself makes likely, with `positions` contexts in all.

        Returns:
            The ids of each text, and the length of the prompt at its beginning.
        """
        per_prompt = min(-(-positions // len(self.prompts)), context // 2)
        texts = []
        for number, prompt in enumerate(self.prompts):
            count = min(per_prompt, positions - number * per_prompt)
            if count > 0:
                start = prompt[-(context - count) :]
                text_seed = seed_for(seed, "export_gguf", number)
                continuation = self._continue(start, count - 1, text_seed)
                texts.append((start + continuation, len(start)))
        return texts

    def _continue(self, prompt: list[int], tokens: int, seed: int | None = None) -> list[int]:
        """Continue a prompt.

        Without a seed, this is the most likely continuation, up to a stop token. With a seed, it
        is sampled and has exactly `tokens` tokens.
        """
        if tokens == 0:
            return []
        if seed is None:
            settings: dict[str, Any] = {"eos_token_id": sorted(self._stops)}
        else:
            settings = {"do_sample": True, "top_k": 0}
        config = GenerationConfig(max_new_tokens=tokens, pad_token_id=0, **settings)
        ids = torch.tensor([prompt])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed or 0)
            generated = self._model.generate(
                ids, generation_config=config, attention_mask=torch.ones_like(ids)
            )
        continuation = generated[0, len(prompt) :].tolist()
        return self._until_stop(continuation) if seed is None else continuation

    def _until_stop(self, ids: Iterable[int]) -> list[int]:
        return list(takewhile(lambda token: token not in self._stops, ids))

    @torch.inference_mode()
    def _log_probabilities(self, ids: list[int]) -> np.ndarray:
        """Return [T, V] in float64."""
        return self._model(torch.tensor([ids])).logits[0].double().log_softmax(-1).numpy()

    def questions(self, gguf: Path, threads: int) -> dict[str, Any]:
        """Return what to ask llama.cpp, as plain JSON.

        Args:
            gguf: The file to ask about.
            threads: CPU threads of llama.cpp.
        """
        return {
            "gguf": str(gguf),
            "threads": threads,
            "strings": self.strings,
            "chats": self.chats,
            "prompts": self.prompts,
            "tokens": self.new_tokens,
            "prefixes": self.prefixes,
            "vocabulary": self.size,
        }

    def compare(self, ids: dict[str, list[list[int]]], other_PV: np.ndarray) -> Compared:
        """Compare torch with the answers of llama.cpp.

        Args:
            ids: As `llama_cpp.reply` returns them.
            other_PV: Natural logarithms of llama.cpp's probabilities.
        """
        mine_PV = self.log_probabilities_PV
        difference_PV = mine_PV - np.maximum(other_PV, MIN_LOG_PROBABILITY)
        kl_P = (np.exp(mine_PV) * difference_PV).sum(-1)
        kl = float(kl_P.mean())
        is_top1_same_P = mine_PV.argmax(-1) == other_PV.argmax(-1)
        theirs = [self._until_stop(text) for text in ids["greedy"]]
        texts = zip(self.prompts, self.greedy, theirs, strict=True)
        gaps = [self._gap(prompt, mine, other) for prompt, mine, other in texts]
        return Compared(
            # rounding may end below 0; NaN must stay NaN, so that the limit refuses it
            kl=0.0 if kl < 0 else kl,
            top1=float(is_top1_same_P.mean()),
            positions=len(kl_P),
            same_greedy_text=self.greedy == theirs,
            beyond_a_tie=max(gaps) > TIE and not self._is_sparse,
            mismatches=self._mismatches(ids),
        )

    def _mismatches(self, ids: dict[str, list[list[int]]]) -> list[str]:
        texts = [*map(str, self.strings), *map(str, self.chats)]
        in_torch = [*self.string_ids, *self.chat_ids]
        in_llama_cpp = [*ids["strings"], *ids["chats"]]
        return [
            f"{text!r}: torch {mine}, llama.cpp {other}"
            for text, mine, other in zip(texts, in_torch, in_llama_cpp, strict=True)
            if mine != other
        ]

    def _gap(self, prompt: list[int], mine: list[int], theirs: list[int]) -> float:
        """Return the nats between the two tokens where two greedy texts part; 0 if they are equal.

        They are those of torch.
        """
        if mine == theirs:
            return 0.0
        same = 0
        while same < min(len(mine), len(theirs)) and mine[same] == theirs[same]:
            same += 1
        logs_V = self._log_probabilities(prompt + mine[:same])[-1]
        stop = max(logs_V[token] for token in self._stops)
        first = logs_V[mine[same]] if same < len(mine) else stop
        second = logs_V[theirs[same]] if same < len(theirs) else stop
        return float(abs(first - second))


def _chats(prompts: Sequence[str]) -> list[list[dict[str, str]]]:
    """Return each prompt as a conversation, then one of several turns."""
    chats = [[{"role": "user", "content": prompt}] for prompt in prompts]
    answer = {"role": "assistant", "content": "Yes: a b.\n"}
    return [*chats, [*chats[0], answer, *chats[-1]]]


def _encode(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    encodings = tokenizer.backend_tokenizer.encode_batch(texts, add_special_tokens=False)
    return [encoding.ids for encoding in encodings]


def ask(questions: dict[str, Any], scratch: Path) -> tuple[dict[str, Any], np.ndarray]:
    """Ask llama.cpp, in a child process.

    Args:
        questions: As `Reference.questions` returns them.
        scratch: A folder for the files of the exchange.

    Returns:
        The ids, and the log-probabilities [P, V].

    Raises:
        ContractError: llama.cpp refuses or crashes; the message has the end of its log.
        GroundupError: It does not come to an end.
    """
    asked, answered = scratch / "questions.json", scratch / "answers.npz"
    asked.write_text(json.dumps(questions), "utf-8")
    command = [sys.executable, "-P", llama_cpp.__file__, str(asked), str(answered)]
    name = Path(questions["gguf"]).name
    log = scratch / "llama.log"
    status = _status(command, name, log)
    if status:
        raise ContractError(
            name,
            f"llama.cpp (xllamacpp) ended with status {status}: {_end(log)}",
            "nothing was published; report the log above",
        )
    with np.load(answered) as answers:
        return json.loads(str(answers["ids"])), answers["log_probabilities_PV"]


def _status(command: list[str], name: str, log: Path) -> int:
    """Run a command, and return its exit status. Its errors go to `log`."""
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=errors
        ) as child,
    ):
        try:
            return child.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            child.kill()
            raise GroundupError(
                name,
                f"llama.cpp (xllamacpp) was not done after {TIMEOUT:g} seconds: {_end(log)}",
                "nothing was published; set export_gguf.positions and new_tokens lower, "
                "or threads higher",
            ) from None
        except BaseException:
            child.kill()
            raise


def _end(log: Path) -> str:
    return log.read_text("utf-8", "replace").strip()[-SHOWN_LOG:] or "its log is empty"
