"""Stock llama.cpp on a GGUF file, through the wheel of xllamacpp: tokens, distributions, text.

llama.cpp aborts the whole process on a file that it dislikes, so it runs in a child process. Run as a program,
`python llama_cpp.py QUESTIONS.json ANSWERS.npz` answers one file of questions, and `python llama_cpp.py serve GGUF THREADS CONTEXT`
prints where it listens and answers until its stdin ends. Imports nothing of groundup.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

BYTES_PER_THREAD = 50_000_000
SERVING = "serving"  # begins the line that says where
PLAIN_TEMPLATE = "{{ messages[0].content }}"  # llama.cpp tries the template of a file while it loads it, without bounds


def useful_threads(gguf: Path, most: int) -> int:
    """Below about 50 MB of weights a thread, llama.cpp's threads wait for each other longer than they work."""
    return max(1, min(most, gguf.stat().st_size // BYTES_PER_THREAD))


class Refused(RuntimeError):  # noqa: N818  an answer, not a fault
    """llama.cpp answers that it will not, or answers what is no answer."""


class LlamaCpp:
    """One loaded model, over HTTP. context: tokens that it sees at once.

    Its methods raise Refused if llama.cpp refuses, OSError or HTTPException if it ends.
    """

    def __init__(self, address: str, key: str):
        """address, key: those of `serving`."""
        self._address, self._key = address, key
        self._http = http.client.HTTPConnection(address)
        self.context: int = self._call("GET", "/v1/models")["data"][0]["meta"]["n_ctx_train"]

    def close(self) -> None:
        self._http.close()

    def special_tokens(self) -> dict[str, str]:
        """{"bos_token", "eos_token"}, as far as the file names them."""
        told = self._call("GET", "/props")
        return {key: told[key] for key in ("bos_token", "eos_token") if told.get(key)}

    def tokenize(self, text: str, special: bool = False) -> list[int]:
        """Ids of `text`; with `special`, text that spells a special token becomes that token."""
        return self._call(
            "POST", "/tokenize", {"content": text, "add_special": False, "parse_special": special}
        )["tokens"]

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
        told = self.complete(
            prompt, n_predict=1, n_probs=vocabulary, logit_bias=[[self.tokenize("a")[0], 1e4]]
        )
        out_V = np.full(vocabulary, -np.inf)
        for entry in told["completion_probabilities"][0]["top_logprobs"]:
            # "no probability at all" is written as null
            out_V[entry["id"]] = -np.inf if entry["logprob"] is None else entry["logprob"]
        return out_V

    def stream(self, prompt: list[int], tokens: int, settings: dict[str, Any]) -> Iterator[str]:
        """The continuation of `prompt`, piece by piece, up to the end of the turn. Closing the iterator stops the model."""
        body = {
            "prompt": prompt,
            "n_predict": tokens,
            "stream": True,
            "cache_prompt": True,
        } | settings
        connection = http.client.HTTPConnection(self._address)
        try:
            connection.request("POST", "/completion", json.dumps(body), self._headers())
            response = connection.getresponse()
            if response.status != 200:
                raise Refused(f"llama.cpp refused to answer: {_reason(response.read())}")
            for line in response:
                kind, _, data = line.strip().partition(b": ")
                if kind not in (b"error", b"data"):
                    continue
                told = _object(data)
                if kind == b"error" or not isinstance(told.get("content"), str):
                    raise Refused(f"llama.cpp refused to answer: {_reason(data)}")
                yield told["content"]
                if told.get("stop"):
                    return
        finally:
            connection.close()

    def complete(self, prompt: list[int], **settings: Any) -> dict[str, Any]:
        """The server's whole answer; `settings` are those of POST /completion."""
        return self._call(
            "POST",
            "/completion",
            {"prompt": prompt, "temperature": 0, "cache_prompt": True} | settings,
        )

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        self._http.request(
            method, path, json.dumps(body) if body is not None else None, self._headers()
        )
        response = self._http.getresponse()
        return self._told(response.status, response.read(), path)

    @staticmethod
    def _told(status: int, data: bytes, path: str) -> dict[str, Any]:
        if status != 200:
            raise Refused(f"llama.cpp refused {path}: {_reason(data)}")
        return _object(data)

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}


def _object(data: bytes) -> dict[str, Any]:
    """A JSON object of the server's. Raises Refused for anything else."""
    try:
        told = json.loads(data)
    except ValueError:
        told = None
    if not isinstance(told, dict):
        raise Refused(f"llama.cpp answers what is no JSON object: {_reason(data)}")
    return told


def _reason(data: bytes) -> str:
    """What the server says in an answer that is none."""
    try:
        error = json.loads(data)["error"]
        return str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, LookupError, TypeError):
        return data[:300].decode("utf-8", "replace")


@contextmanager
def serving(
    gguf: Path, threads: int, context: int = 0, template: str = ""
) -> Iterator[tuple[str, str]]:
    """(address, key) of a server in this process: on a loopback port of its own, behind a random key.

    context: most tokens at once; 0: as the file says. template: taken instead of the chat template in the file.
    Raises RuntimeError, or ends the process, if llama.cpp cannot load the file.
    """
    import xllamacpp

    key = secrets.token_hex(16)
    params = xllamacpp.CommonParams()
    params.model.path = str(gguf)
    params.api_keys = [key]
    params.n_ctx = context
    params.n_parallel = 1
    params.n_gpu_layers = 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.fit_params = params.warmup = params.ui = False
    params.verbosity = 1  # errors
    params.reasoning_format = xllamacpp.common_reasoning_format.COMMON_REASONING_FORMAT_NONE
    params.chat_template = template
    server = xllamacpp.Server(params)
    try:
        yield server.listening_address.rsplit("/", 1)[1], key
    finally:
        del server  # frees the model, its threads and its port


@contextmanager
def loaded(gguf: Path, threads: int) -> Iterator[LlamaCpp]:
    """The model in this process, for as long as the block lasts. Raises what `serving` raises."""
    with serving(gguf, threads) as (address, key):
        model = LlamaCpp(address, key)
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
    rows = [
        model.log_probabilities(prefix, questions["vocabulary"]) for prefix in questions["prefixes"]
    ]
    return {"ids": np.array(json.dumps(ids)), "log_probabilities_PV": np.stack(rows)}


def answer_questions(questions: str, answers: str) -> None:
    # the parent holds the other end of stdin: when it dies, however it dies, this process ends too
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(1)), daemon=True).start()
    asked = json.loads(Path(questions).read_text("utf-8"))
    with loaded(Path(asked["gguf"]), asked["threads"]) as model:
        np.savez(answers, **reply(asked, model))  # type: ignore[arg-type]
    sys.stdout.flush()
    os._exit(
        0
    )  # the thread that waits on stdin holds a lock that the interpreter's shutdown would wait for


def serve(gguf: str, threads: str, context: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides, and ends stdin
    with serving(Path(gguf), int(threads), int(context), PLAIN_TEMPLATE) as (address, key):
        print(SERVING, json.dumps([address, key]), flush=True)
        sys.stdin.read()
        os._exit(0)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(*sys.argv[2:])
    else:
        answer_questions(*sys.argv[1:])
