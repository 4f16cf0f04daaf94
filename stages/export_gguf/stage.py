"""export_gguf: a checkpoint becomes one GGUF file per quantization.

Each file is compared with torch in stock llama.cpp before it is published.
"""

from __future__ import annotations

from pathlib import Path

from data_contracts import Artifact, ContractError, Draft
from data_contracts.checkpoint_config import CheckpointConfig
from stages.execution.cores import cores
from stages.export_gguf import architecture
from stages.export_gguf.config import ExportGgufConfig
from stages.export_gguf.parity import Compared, Reference, ask
from stages.export_gguf.vocabulary import Vocabulary, read_vocabulary
from stages.export_gguf.writer import write
from stages.llama_cpp.engine import useful_threads
from stages.lm.checkpoint import require_weights
from stages.lm.tokenizer import ModelTokenizer
from stages.report import Facts, Report

UNIT = "steps"  # each file is written, then compared
SHOWN_MISMATCH = 500  # characters


def run(config: ExportGgufConfig, *, checkpoint: Artifact, out: Draft, report: Report) -> Facts:
    """Write each file, load it, and compare it with torch.

    A file that tokenizes differently, or is too far from torch, fails the stage.

    Args:
        config: The settings of the stage.
        checkpoint: The model to export.
        out: The draft of the files.
        report: Receives progress and notes.
    """
    sizes = architecture.read_config(checkpoint.path)
    require_weights(checkpoint.path)
    tokenizer = ModelTokenizer(checkpoint)
    vocabulary = read_vocabulary(tokenizer)
    stem = config.name.replace(" ", "-")
    paths: dict[str, Path] = {}
    for quantization in dict.fromkeys(config.quantizations):
        paths[quantization] = out.path(f"{stem}-{quantization}.gguf")
    notes = _write_all(config, checkpoint.path, sizes, vocabulary, paths, report)

    reference = Reference(
        tokenizer,
        vocabulary,
        config.prompts,
        config.new_tokens,
        config.positions,
        config.seed,
    )
    strings = len(reference.strings)
    compared: dict[str, Compared] = {}
    steps = 2 * len(paths)
    for done, (name, path) in enumerate(paths.items(), len(paths)):
        report.progress(done, steps, UNIT)
        threads = config.threads or useful_threads(path, cores())
        ids, log_probabilities_PV = ask(reference.questions(path, threads), out.scratch)
        result = reference.compare(ids, log_probabilities_PV)
        check(name, result, config)
        compared[name] = result
        notes += _remarks(name, result)

    rows = [_row(name, paths[name], result, strings) for name, result in compared.items()]
    out.write("quantizations", rows)
    report.progress(steps, steps, UNIT)
    for note in notes:
        report.note(note)
    return _facts(paths, compared, strings, notes)


def _write_all(
    config: ExportGgufConfig,
    folder: Path,
    sizes: CheckpointConfig,
    vocabulary: Vocabulary,
    paths: dict[str, Path],
    report: Report,
) -> list[str]:
    """Write the file of each quantization. Returns notes on what a reader must know of them."""
    notes: list[str] = []
    metadata = _metadata(config)
    for done, (quantization, path) in enumerate(paths.items()):

        def on_progress(share: float, done: int = done) -> None:
            report.progress(done + share, 2 * len(paths), UNIT)

        fallen_back = write(path, folder, sizes, vocabulary, quantization, metadata, on_progress)
        if fallen_back:
            notes.append(
                f"{quantization}: {len(fallen_back)} tensors are F16, "
                f"for example {fallen_back[0]}: their rows do not divide into blocks of 32."
            )
    return notes


def check(quantization: str, result: Compared, config: ExportGgufConfig) -> None:
    """Check one file against the limits.

    Args:
        quantization: The type of the file's matrices.
        result: How far the file is from torch.
        config: The limits.

    Raises:
        ContractError: It is not the same model. The message names the quantization, what was
            measured and the limit.
    """
    what = f"{quantization} file"
    if result.mismatches:
        first = result.mismatches[0][:SHOWN_MISMATCH]
        raise ContractError(
            what,
            f"llama.cpp tokenizes {len(result.mismatches)} strings otherwise than torch, "
            f"first {first}",
            "train the tokenizer with other special tokens: llama.cpp treats some names "
            "(e.g. <|start|>, <|message|>) in its own way",
        )
    name, limit = config.limit(quantization)
    if not result.kl <= limit:  # NaN is refused, too
        instead = f"leave {quantization} out"
        if name == "max_kl.bits_16":
            instead = "report it: so much in 16 bits means a tensor is misread"
        raise ContractError(
            what,
            f"KL(torch || llama.cpp) is {result.kl:.3g} nats per position "
            f"over {result.positions} positions, the limit is {limit:g}",
            f"set export_gguf.{name} higher if you can live with that, or {instead}",
        )
    if name == "max_kl.bits_16" and result.beyond_a_tie:
        raise ContractError(
            what,
            "its greedy text differs from torch's where torch is not in doubt",
            "nothing was published; report this",
        )


def _remarks(quantization: str, result: Compared) -> list[str]:
    if result.same_greedy_text or quantization.startswith("Q") or result.beyond_a_tie:
        return []
    return [
        f"{quantization}: greedy text parts from torch's, at a tie of two tokens or two experts."
    ]


def _metadata(config: ExportGgufConfig) -> dict[str, str]:
    given = {
        "general.name": config.name,
        "general.author": config.author,
        "general.license": config.license,
    }
    return {key: value for key, value in given.items() if value}


def _row(quantization: str, path: Path, result: Compared, strings: int) -> dict[str, object]:
    return {
        "quantization": quantization,
        "file": path.name,
        "bytes": path.stat().st_size,
        "kl_divergence": float(f"{result.kl:.3g}"),
        "top1_agreement": result.top1,
        "same_greedy_text": result.same_greedy_text,
        "positions": result.positions,
        "token_mismatches": len(result.mismatches),
        "strings": strings,
    }


def _facts(
    paths: dict[str, Path], compared: dict[str, Compared], strings: int, notes: list[str]
) -> Facts:
    figures: dict[str, float | int | str | bool | None] = {"strings_with_same_ids": strings}
    for quantization, result in compared.items():
        figures[f"{quantization}_bytes"] = paths[quantization].stat().st_size
        figures[f"{quantization}_kl"] = float(f"{result.kl:.3g}")
        figures[f"{quantization}_top1_agreement"] = round(result.top1, 4)
        figures[f"{quantization}_same_greedy_text"] = result.same_greedy_text
    return Facts(figures=figures, notes=notes)
