"""`groundup chat`: a GGUF in llama.cpp, and a person at the keyboard."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from data_contracts import ConfigError, Store
from data_contracts.foreign_text import pieces
from flows.cli.console import out

if TYPE_CHECKING:
    from stages.llama_cpp.chat import ChatModel


def talk(store: Store, model: str, prompt: str | None, quantization: str | None) -> None:
    """Answer one prompt, or talk until the person leaves with an empty line or the end of the input.

    Raises ConfigError if `model` is neither a run with a gguf_model nor a GGUF file, or lacks the quantization,
    and if a question is no text.
    """
    from stages.llama_cpp.chat import answer, loaded

    if prompt:
        _check_text(prompt, "--prompt")
    messages: list[dict[str, str]] = []
    with loaded(find(store, model, quantization)) as llama:
        if llama.context < llama.full_context:
            out.print(
                f"[dim]sees {llama.context:,} tokens at once of {llama.full_context:,}: the free memory holds no more[/]"
            )
        while question := prompt or _asked():
            messages.append({"role": "user", "content": question})
            _make_room(llama, messages)
            said: list[str] = []
            for piece in pieces(_kept(answer(llama, messages), said)):
                print(piece, end="", flush=True)
            print()
            if prompt:
                return
            messages.append({"role": "assistant", "content": "".join(said)})


def _kept(answer: Iterable[str], into: list[str]) -> Iterator[str]:
    """What comes, as it comes: the model is to hear itself as it spoke, and the person what is safe to print."""
    for piece in answer:
        into.append(piece)
        yield piece


def _asked() -> str:
    try:
        question = out.input("[bold]> [/]").strip()
    except EOFError:
        print()
        return ""
    except UnicodeDecodeError:
        raise _no_text("standard input") from None
    _check_text(question, "standard input")
    return question


def _check_text(question: str, where: str) -> None:
    """Python keeps bytes that are no UTF-8 as halves of characters, which no model reads."""
    try:
        question.encode()
    except UnicodeEncodeError:
        raise _no_text(where) from None


def _no_text(where: str) -> ConfigError:
    why = "holds bytes that are no UTF-8, so it is no question that a model could read"
    return ConfigError(where, why, "write it in UTF-8, e.g. by way of: iconv -f latin1 -t utf-8")


def _make_room(llama: ChatModel, messages: list[dict[str, str]]) -> None:
    """Forget the oldest turns, as far as half of the context is not free for the answer."""
    while len(messages) > 1 and len(llama.prompt(messages)) > llama.context // 2:
        del messages[:2]


def find(store: Store, model: str, quantization: str | None = None) -> Path:
    """The GGUF file of a run, or the file itself. Without a quantization: Q8_0 if there is one, else the first."""
    if model.endswith(".gguf"):
        if not Path(model).is_file():
            raise ConfigError(
                f"model {model}", "there is no such file", "groundup ls shows the runs"
            )
        return Path(model)
    if "/" not in model:
        store.refs.require_run(model)
    artifact = store.find(model if "/" in model else f"{model}/gguf_model", verify=True)
    rows = {
        row["quantization"]: row["file"]
        for row in artifact.read("quantizations", ["quantization", "file"]).to_pylist()
    }
    wanted = (quantization or ("Q8_0" if "Q8_0" in rows else next(iter(rows)))).upper()
    if wanted not in rows:
        raise ConfigError(
            f"--quantization {quantization}",
            f"{model} does not have it",
            f"choose from: {', '.join(rows)}",
        )
    return artifact.path / rows[wanted]
