"""Stock llama.cpp on a GGUF file, through the wheel of xllamacpp: tokens, distributions, text.

llama.cpp aborts the whole process on a file that it cannot load, so this file runs as the program
of a child process. It imports nothing of groundup.

    python engine.py QUESTIONS.json ANSWERS.npz        answers one file of questions
    python engine.py serve GGUF THREADS CONTEXT        prints its address, answers until stdin ends
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
SERVING = "serving"  # begins the line with the address
# llama.cpp tries the template of a file while it loads the file, without bounds; it gets this one
PLAIN_TEMPLATE = "{{ messages[0].content }}"
SHOWN_ANSWER = 300  # bytes


def useful_threads(gguf: Path, max_threads: int) -> int:
    """Return how many threads a file can use.

    With less than about 50 MB of weights each, llama.cpp's threads wait for each other longer than
    they work.

    Args:
        gguf: The file.
        max_threads: Threads that there are.
    """
    return max(1, min(max_threads, gguf.stat().st_size // BYTES_PER_THREAD))


class Refused(RuntimeError):  # noqa: N818  an answer, not a fault
    """A request that llama.cpp refuses, or an answer that cannot be understood."""


class LlamaCpp:
    """One loaded model, over HTTP.

    Its methods raise Refused if llama.cpp refuses, and OSError or HTTPException if it ends.

    Attributes:
        context: Tokens that the model sees at once.
    """

    def __init__(self, address: str, key: str):
        """address, key: as `serving` returns them."""
        self._address, self._key = address, key
        models = self._call("GET", "/v1/models")["data"]
        self.context: int = models[0]["meta"]["n_ctx_train"]

    def special_tokens(self) -> dict[str, str]:
        """Return the texts of "bos_token" and "eos_token", if the file names them."""
        properties = self._call("GET", "/props")
        return {key: properties[key] for key in ("bos_token", "eos_token") if properties.get(key)}

    def tokenize(self, text: str, special: bool = False) -> list[int]:
        """Return the ids of a text.

        With `special`, the spelling of a special token is that token.
        """
        body = {"content": text, "add_special": False, "parse_special": special}
        return self._call("POST", "/tokenize", body)["tokens"]

    def render(self, messages: list[dict[str, str]]) -> str:
        """Return the prompt that the embedded chat template makes."""
        return self._call("POST", "/apply-template", {"messages": messages})["prompt"]

    def greedy(self, prompt: list[int], tokens: int) -> list[int]:
        """Return the ids of the most likely continuation, at most `tokens`, to the end of the turn.

        Args:
            prompt: Ids.
            tokens: The longest continuation.
        """
        return self.complete(prompt, n_predict=tokens, return_tokens=True)["tokens"]

    def log_probabilities(self, prompt: list[int], vocabulary: int) -> np.ndarray:
        """Return [V] natural logarithms of the distribution over the vocabulary after `prompt`.

        Args:
            prompt: Ids.
            vocabulary: V, the size of the vocabulary.
        """
        # The server returns the distribution before the sampler. The sampler is made to choose a
        # letter: after an end of turn, or half a character, the server would return nothing.
        letter = self.tokenize("a")[0]
        reply = self.complete(prompt, n_predict=1, n_probs=vocabulary, logit_bias=[[letter, 1e4]])
        out_V = np.full(vocabulary, -np.inf)
        for entry in reply["completion_probabilities"][0]["top_logprobs"]:
            # null means a probability of zero
            out_V[entry["id"]] = -np.inf if entry["logprob"] is None else entry["logprob"]
        return out_V

    def stream(self, prompt: list[int], tokens: int, settings: dict[str, Any]) -> Iterator[str]:
        """Yield the continuation of a prompt, piece by piece, to the end of the turn.

        Closing the iterator stops the model.

        Args:
            prompt: Ids.
            tokens: The longest continuation.
            settings: Further settings of POST /completion.
        """
        body = {
            "prompt": prompt,
            "n_predict": tokens,
            "stream": True,
            "cache_prompt": True,
            **settings,
        }
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
                event = _object(data)
                if kind == b"error" or not isinstance(event.get("content"), str):
                    raise Refused(f"llama.cpp refused to answer: {_reason(data)}")
                yield event["content"]
                if event.get("stop"):
                    return
        finally:
            connection.close()

    def complete(self, prompt: list[int], **settings: Any) -> dict[str, Any]:
        """Return the server's whole answer to POST /completion.

        Args:
            prompt: Ids.
            settings: Further settings of the request.
        """
        body = {"prompt": prompt, "temperature": 0, "cache_prompt": True, **settings}
        return self._call("POST", "/completion", body)

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        data = json.dumps(body) if body is not None else None
        # Each request has its own connection: the server closes one that is idle for five seconds,
        # and a person may think longer than that.
        connection = http.client.HTTPConnection(self._address)
        try:
            connection.request(method, path, data, self._headers())
            response = connection.getresponse()
            return self._reply(response.status, response.read(), path)
        finally:
            connection.close()

    @staticmethod
    def _reply(status: int, data: bytes, path: str) -> dict[str, Any]:
        if status != 200:
            raise Refused(f"llama.cpp refused {path}: {_reason(data)}")
        return _object(data)

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}


def _object(data: bytes) -> dict[str, Any]:
    """Return the JSON object that the server sent.

    Raises:
        Refused: It sent something else.
    """
    try:
        value = json.loads(data)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise Refused(
            f"llama.cpp answers with something that is not a JSON object: {_reason(data)}"
        )
    return value


def _reason(data: bytes) -> str:
    """Return why the server refused, as far as its answer says so."""
    try:
        error = json.loads(data)["error"]
        return str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, LookupError, TypeError):
        return data[:SHOWN_ANSWER].decode("utf-8", "replace")


@contextmanager
def serving(
    gguf: Path, threads: int, context: int = 0, template: str = ""
) -> Iterator[tuple[str, str]]:
    """Provide a server in this process, on a free loopback port, behind a random key.

    Args:
        gguf: The file.
        threads: CPU threads.
        context: The most tokens at once; 0 for what the file allows.
        template: Replaces the chat template in the file.

    Yields:
        The address and the key.

    Raises:
        RuntimeError: llama.cpp cannot load the file. It may also end the process instead.
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
    """Provide the model in this process, for as long as the block lasts.

    Args:
        gguf: The file.
        threads: CPU threads.

    Raises:
        RuntimeError: llama.cpp cannot load the file. It may also end the process instead.
    """
    with serving(gguf, threads) as (address, key):
        yield LlamaCpp(address, key)


def reply(questions: dict[str, Any], model: LlamaCpp) -> dict[str, np.ndarray]:
    """Answer all questions.

    Args:
        questions: As `stages.export_gguf.parity.Reference.questions` makes them.
        model: The loaded model.

    Returns:
        "ids", lists of ids as JSON, and "log_probabilities_PV".
    """
    ids = {
        "strings": [model.tokenize(text) for text in questions["strings"]],
        "chats": [model.tokenize(model.render(chat), special=True) for chat in questions["chats"]],
        "greedy": [model.greedy(prompt, questions["tokens"]) for prompt in questions["prompts"]],
    }
    size = questions["vocabulary"]
    rows = [model.log_probabilities(prefix, size) for prefix in questions["prefixes"]]
    return {"ids": np.array(json.dumps(ids)), "log_probabilities_PV": np.stack(rows)}


def answer_questions(questions: str, answers: str) -> None:
    """Answer a file of questions, and end this process."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    asked = json.loads(Path(questions).read_text("utf-8"))
    with loaded(Path(asked["gguf"]), asked["threads"]) as model:
        np.savez(answers, **reply(asked, model))  # type: ignore[arg-type]
    sys.stdout.flush()
    # the thread that waits on stdin holds a lock that the interpreter's shutdown would wait for
    os._exit(0)


def _end_with_parent() -> None:
    """End this process when the parent ends, which holds the other end of stdin."""
    sys.stdin.read()
    os._exit(1)


def serve(gguf: str, threads: str, context: str) -> None:
    """Print the address and the key, and answer until stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop, and ends stdin
    with serving(Path(gguf), int(threads), int(context), PLAIN_TEMPLATE) as (address, key):
        print(SERVING, json.dumps([address, key]), flush=True)
        sys.stdin.read()
        os._exit(0)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(*sys.argv[2:])
    else:
        answer_questions(*sys.argv[1:])
