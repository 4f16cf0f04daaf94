"""`groundup chat`: a conversation with a GGUF model in llama.cpp."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from data_contracts import ConfigError, Store
from data_contracts.foreign_text import pieces
from flows.cli.console import out

if TYPE_CHECKING:
    from stages.llama_cpp.chat import ChatModel

DEFAULT_QUANTIZATION = "Q8_0"


def talk(store: Store, model: str, prompt: str | None, quantization: str | None) -> None:
    """Answer one prompt, or hold a conversation until an empty line or the end of the input.

    Args:
        store: The store that has the model.
        model: A run, a reference to its gguf_model, or the path of a GGUF file.
        prompt: The only question; without it, a person types questions.
        quantization: Which of the run's files to load, e.g. "Q4_0".

    Raises:
        ConfigError: There is no such model, it lacks the quantization, or a question is not text.
    """
    from stages.llama_cpp.chat import answer, loaded

    if prompt:
        _require_text(prompt, "--prompt")
    messages: list[dict[str, str]] = []
    with loaded(find(store, model, quantization)) as llama:
        if llama.context < llama.full_context:
            out.print(
                f"[dim]uses {llama.context:,} of {llama.full_context:,} tokens of context: the free"
                " memory holds no more[/]"
            )
        while True:
            question = prompt or _read_question()
            if not question:
                return
            messages.append({"role": "user", "content": question})
            _forget_oldest(llama, messages)
            received: list[str] = []
            for piece in pieces(_recorded(answer(llama, messages), received)):
                print(piece, end="", flush=True)
            print()
            if prompt:
                return
            messages.append({"role": "assistant", "content": "".join(received)})


def _recorded(answer: Iterable[str], received: list[str]) -> Iterator[str]:
    """Pass an answer on, and add it to `received` as it is.

    The person sees what is safe to print. The model gets its own words back unchanged.
    """
    for piece in answer:
        received.append(piece)
        yield piece


def _read_question() -> str:
    """Return the question that a person types; "" to end the conversation."""
    try:
        question = out.input("[bold]> [/]").strip()
    except EOFError:
        print()
        return ""
    except UnicodeDecodeError:
        raise _not_text("standard input") from None
    _require_text(question, "standard input")
    return question


def _require_text(question: str, where: str) -> None:
    """Refuse bytes that are not UTF-8. Python keeps them as halves of characters."""
    try:
        question.encode()
    except UnicodeEncodeError:
        raise _not_text(where) from None


def _not_text(where: str) -> ConfigError:
    why = "holds bytes that are not UTF-8, so the model cannot read it"
    return ConfigError(where, why, "convert it to UTF-8, e.g. with iconv -f latin1 -t utf-8")


def _forget_oldest(llama: ChatModel, messages: list[dict[str, str]]) -> None:
    """Drop the oldest turns until half of the context is free for the answer."""
    while len(messages) > 1 and len(llama.prompt(messages)) > llama.context // 2:
        del messages[:2]


def find(store: Store, model: str, quantization: str | None = None) -> Path:
    """Find the GGUF file of a model.

    Args:
        store: The store that has the model.
        model: A run, a reference to its gguf_model, or the path of a GGUF file.
        quantization: Which of the files; without it Q8_0, or else the first.

    Raises:
        ConfigError: There is no such model, or it lacks the quantization.
        ArtifactError: The model is damaged.
    """
    if model.endswith(".gguf"):
        if not Path(model).is_file():
            raise ConfigError(
                f"model {model}", "there is no such file", "groundup ls shows the runs"
            )
        return Path(model)
    if "/" not in model:
        store.refs.require_run(model)
    reference = model if "/" in model else f"{model}/gguf_model"
    artifact = store.find(reference, verify=True)
    rows = artifact.read("quantizations", ["quantization", "file"]).to_pylist()
    files = {row["quantization"]: row["file"] for row in rows}
    chosen = quantization.upper() if quantization else DEFAULT_QUANTIZATION
    if not quantization and chosen not in files:
        chosen = next(iter(files))
    if chosen not in files:
        raise ConfigError(
            f"--quantization {quantization}",
            f"{model} does not have it",
            f"choose from: {', '.join(files)}",
        )
    return artifact.path / files[chosen]
