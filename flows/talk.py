"""`groundup chat`: a GGUF in llama.cpp, and a person at the keyboard."""

from __future__ import annotations

from pathlib import Path

from data_contracts import ConfigError, Store
from flows.console import out


def talk(store: Store, model: str, prompt: str | None, quantization: str | None) -> None:
    """Answer one prompt, or talk until the person leaves with an empty line.

    Raises ConfigError if `model` is neither a run with a gguf_model nor a GGUF file, or lacks the quantization.
    """
    from stages.export_gguf.chat import answer, loaded

    messages: list[dict[str, str]] = []
    with loaded(find(store, model, quantization)) as llama:
        while question := prompt or out.input("[bold]> [/]").strip():
            messages.append({"role": "user", "content": question})
            said = ""
            for piece in answer(llama, messages):
                said += piece
                print(piece, end="", flush=True)
            print()
            if prompt:
                return
            messages.append({"role": "assistant", "content": said})


def find(store: Store, model: str, quantization: str | None = None) -> Path:
    """The GGUF file of a run, or the file itself. Without a quantization: Q8_0 if there is one, else the first."""
    if model.endswith(".gguf"):
        if not Path(model).is_file():
            raise ConfigError(f"model {model}", "there is no such file", "groundup ls shows the runs")
        return Path(model)
    artifact = store.find(model if "/" in model else f"{model}/gguf_model", verify=True)
    rows = {row["quantization"]: row["file"] for row in artifact.read("quantizations", ["quantization", "file"]).to_pylist()}
    wanted = (quantization or ("Q8_0" if "Q8_0" in rows else next(iter(rows)))).upper()
    if wanted not in rows:
        raise ConfigError(f"--quantization {quantization}", f"{model} does not have it", f"choose from: {', '.join(rows)}")
    return artifact.path / rows[wanted]
