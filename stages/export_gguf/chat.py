"""A conversation with a GGUF file, in this process."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from data_contracts import ArtifactError, InputError
from stages.export_gguf import llama_cpp
from stages.export_gguf.llama_cpp import LlamaCpp, useful_threads
from stages.shards import cores


@contextmanager
def loaded(gguf: Path, threads: int = 0) -> Iterator[LlamaCpp]:
    """llama_cpp.loaded for a person: threads 0 are as many as the size of the file is worth.

    Raises ArtifactError if llama.cpp cannot load the file.
    """
    with ExitStack() as stack:
        try:
            model = stack.enter_context(llama_cpp.loaded(Path(gguf), threads or useful_threads(Path(gguf), cores())))
        except RuntimeError as error:
            raise ArtifactError(
                f"{gguf}", f"llama.cpp cannot load it: {error}", "groundup verify NAME/gguf_model, then export it again"
            ) from None
        yield model


def answer(
    model: LlamaCpp, messages: Sequence[dict[str, str]], max_tokens: int = 256, temperature: float = 0.0, seed: int = 0
) -> Iterator[str]:
    """Pieces of the answer to `messages` ([{"role": "user", "content": …}, …]), as they are made, up to the end of the turn.

    The prompt is made by the chat template in the file. Closing the iterator stops the model.
    Raises InputError if the prompt leaves no room for an answer, or llama.cpp refuses to give one.
    """
    prompt = len(model.tokenize(model.render(list(messages)), special=True))
    if prompt >= model.context:
        raise InputError(
            "the prompt", f"has {prompt} tokens with the chat template, the model's context is {model.context}", "shorten it or start anew"
        )
    pieces: queue.Queue[str | BaseException | None] = queue.Queue()
    stopped = threading.Event()

    def hear(piece: str) -> bool:
        pieces.put(piece)
        return stopped.is_set()

    def work() -> None:
        try:
            model.stream(list(messages), min(max_tokens, model.context - prompt), {"temperature": temperature, "seed": seed}, hear)
            pieces.put(None)
        except RuntimeError as error:
            pieces.put(InputError("the answer", f"{error}", "say it otherwise or start anew"))
        except BaseException as error:  # told in the thread that reads
            pieces.put(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while (piece := pieces.get()) is not None:
            if isinstance(piece, BaseException):
                raise piece
            if piece:
                yield piece
    finally:
        stopped.set()
        thread.join()
