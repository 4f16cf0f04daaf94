"""Stock llama.cpp on a GGUF file, through the wheel of xllamacpp: tokens, distributions, text.

Run as a program it answers one file of questions, `python llama_cpp.py QUESTIONS.json ANSWERS.npz`: llama.cpp aborts the whole
process on a file that it dislikes, so a file that nobody has tried yet is tried in a child process. Imports nothing of groundup.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

BYTES_PER_THREAD = 50_000_000


def useful_threads(gguf: Path, most: int) -> int:
    """Below about 50 MB of weights a thread, llama.cpp's threads wait for each other longer than they work."""
    return max(1, min(most, gguf.stat().st_size // BYTES_PER_THREAD))


class LlamaCpp:
    """One loaded model. Its server listens on a loopback port of its own, behind a random key, until the model is let go."""

    def __init__(self, gguf: Path, threads: int):
        import xllamacpp

        self._key = secrets.token_hex(16)
        params = xllamacpp.CommonParams()
        params.model.path = str(gguf)
        params.api_keys = [self._key]
        params.n_ctx = 0  # as the file says
        params.n_parallel = 1
        params.n_gpu_layers = 0
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        params.fit_params = params.warmup = params.ui = False
        params.verbosity = 1  # errors
        params.reasoning_format = xllamacpp.common_reasoning_format.COMMON_REASONING_FORMAT_NONE
        self._server = xllamacpp.Server(params)
        self._http = http.client.HTTPConnection(self._server.listening_address.rsplit("/", 1)[1])
        self.context: int = self._call("GET", "/v1/models")["data"][0]["meta"]["n_ctx_train"]

    def close(self) -> None:
        """Free the model, its threads and its port."""
        self._http.close()
        del self._server

    def tokenize(self, text: str, special: bool = False) -> list[int]:
        """Ids of `text`; with `special`, text that spells a special token becomes that token."""
        return self._call("POST", "/tokenize", {"content": text, "add_special": False, "parse_special": special})["tokens"]

    def render(self, messages: list[dict[str, str]]) -> str:
        """The prompt that the embedded chat template makes."""
        return self._call("POST", "/apply-template", {"messages": messages})["prompt"]

    def greedy(self, prompt: list[int], tokens: int) -> list[int]:
        """Ids of the most likely continuation, at most `tokens`, up to the end of the turn."""
        return self.complete(prompt, n_predict=tokens, return_tokens=True)["tokens"]

    def log_probabilities(self, prompt: list[int], vocabulary: int) -> np.ndarray:
        """[V] natural logarithms of the distribution over the whole vocabulary after `prompt`."""
        # What is told is the distribution before the sampler. The sampler is made to take a letter: after an end of turn or half a
        # character the server would tell nothing.
        told = self.complete(prompt, n_predict=1, n_probs=vocabulary, logit_bias=[[self.tokenize("a")[0], 1e4]])
        out_V = np.full(vocabulary, -np.inf)
        for entry in told["completion_probabilities"][0]["top_logprobs"]:
            # "no probability at all" is written as null
            out_V[entry["id"]] = -np.inf if entry["logprob"] is None else entry["logprob"]
        return out_V

    def stream(self, messages: list[dict[str, str]], tokens: int, settings: dict[str, Any], hear: Callable[[str], bool]) -> None:
        """Answer `messages`; `hear` gets each piece of text and returns True to stop. Raises RuntimeError if llama.cpp refuses."""
        refusals: list[str] = []  # xllamacpp swallows what a callback raises

        def chunk(told: dict[str, Any]) -> bool:
            if "error" in told:
                refusals.append(told["error"]["message"])
                return True
            return hear("".join(choice["delta"].get("content") or "" for choice in told.get("choices", [])))

        self._server.handle_chat_completions({"messages": messages, "max_tokens": tokens, "stream": True} | settings, chunk)
        if refusals:
            raise RuntimeError(f"llama.cpp refused to answer: {refusals[0]}")

    def complete(self, prompt: list[int], **settings: Any) -> dict[str, Any]:
        """The server's whole answer; `settings` are those of POST /completion."""
        return self._call("POST", "/completion", {"prompt": prompt, "temperature": 0, "cache_prompt": True} | settings)

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
        self._http.request(method, path, json.dumps(body) if body is not None else None, headers)
        response = self._http.getresponse()
        told = json.loads(response.read())
        if response.status != 200:
            raise RuntimeError(f"llama.cpp refused {path}: {told.get('error', told)}")
        return told


@contextmanager
def loaded(gguf: Path, threads: int) -> Iterator[LlamaCpp]:
    """The model, for as long as the block lasts. Raises RuntimeError, or ends the process, if llama.cpp cannot load the file."""
    model = LlamaCpp(gguf, threads)
    try:
        yield model
    finally:
        model.close()


def reply(questions: dict[str, Any], model: LlamaCpp) -> dict[str, np.ndarray]:
    """For each kind of question an array; lists of ids are kept as JSON."""
    ids = {
        "strings": [model.tokenize(text) for text in questions["strings"]],
        "chats": [model.tokenize(model.render(chat), special=True) for chat in questions["chats"]],
        "greedy": [model.greedy(prompt, questions["tokens"]) for prompt in questions["prompts"]],
    }
    rows = [model.log_probabilities(prefix, questions["vocabulary"]) for prefix in questions["prefixes"]]
    return {"ids": np.array(json.dumps(ids)), "log_probabilities_PV": np.stack(rows)}


def main(questions: str, answers: str) -> None:
    # the parent holds the other end of stdin: when it dies, however it dies, this process ends too
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(1)), daemon=True).start()
    asked = json.loads(Path(questions).read_text("utf-8"))
    with loaded(Path(asked["gguf"]), asked["threads"]) as model:
        np.savez(answers, **reply(asked, model))  # type: ignore[arg-type]
    sys.stdout.flush()
    os._exit(0)  # the thread that waits on stdin holds a lock that the interpreter's shutdown would wait for


if __name__ == "__main__":
    main(*sys.argv[1:])
