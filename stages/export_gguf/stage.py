"""export_gguf: a checkpoint becomes one GGUF file per quantization, each compared with torch in stock llama.cpp."""

from __future__ import annotations

from pathlib import Path

from data_contracts import Artifact, ContractError, Draft
from stages.execution.shards import cores
from stages.export_gguf import architecture
from stages.export_gguf.config import ExportGgufConfig
from stages.export_gguf.parity import Compared, Reference, ask
from stages.export_gguf.vocabulary import read_vocabulary
from stages.export_gguf.writer import write
from stages.llama_cpp.engine import useful_threads
from stages.lm.checkpoint import require_weights
from stages.report import Facts, Report

UNIT = "steps"  # each file is written, then compared


def run(config: ExportGgufConfig, *, checkpoint: Artifact, out: Draft, report: Report) -> Facts:
    """Write, load, compare. A file that tokenizes otherwise or is too far from torch fails the stage."""
    sizes = architecture.read_sizes(checkpoint.path)
    require_weights(checkpoint.path)
    vocabulary = read_vocabulary(checkpoint.path)
    wanted: list[str] = list(dict.fromkeys(config.quantizations))
    paths = {
        quantization: out.path(f"{config.name.replace(' ', '-')}-{quantization}.gguf")
        for quantization in wanted
    }
    notes: list[str] = []
    for done, (quantization, path) in enumerate(paths.items()):

        def hear(share: float, done: int = done) -> None:
            report.progress(done + share, 2 * len(wanted), UNIT)

        notes += _fallen_back(
            quantization,
            write(path, checkpoint.path, sizes, vocabulary, quantization, _metadata(config), hear),
        )
    reference = Reference(
        checkpoint.path,
        vocabulary,
        config.prompts,
        config.new_tokens,
        config.positions,
        config.seed,
    )
    compared = {}
    for done, (quantization, path) in enumerate(paths.items(), len(wanted)):
        report.progress(done, 2 * len(wanted), UNIT)
        threads = config.threads or useful_threads(path, cores())
        compared[quantization] = reference.compare(
            *ask(reference.questions(path, threads), out.scratch)
        )
        check(quantization, compared[quantization], config)
        notes += _remarks(quantization, compared[quantization])
    out.write(
        "quantizations",
        [
            _row(quantization, paths[quantization], result, len(reference.strings))
            for quantization, result in compared.items()
        ],
    )
    report.progress(2 * len(wanted), 2 * len(wanted), UNIT)
    for note in notes:
        report.note(note)
    return _facts(paths, compared, len(reference.strings), notes)


def check(quantization: str, result: Compared, config: ExportGgufConfig) -> None:
    """Raises ContractError that names the quantization, what was measured and the limit."""
    if result.mismatches:
        raise ContractError(
            f"{quantization} file",
            f"llama.cpp tokenizes {len(result.mismatches)} strings otherwise than torch, first {result.mismatches[0][:500]}",
            "train the tokenizer with other special tokens: llama.cpp treats some names (e.g. <|start|>, <|message|>) in its own way",
        )
    name, limit = config.limit(quantization)
    if not result.kl <= limit:
        raise ContractError(
            f"{quantization} file",
            f"KL(torch || llama.cpp) is {result.kl:.3g} nats per position over {result.positions} positions, the limit is {limit:g}",
            f"set export_gguf.{name} higher if you can live with that, or "
            + (
                "report it: so much in 16 bits means a tensor is misread"
                if name == "max_kl_16bit"
                else f"leave {quantization} out"
            ),
        )
    if name == "max_kl_16bit" and result.beyond_a_tie:
        raise ContractError(
            f"{quantization} file",
            "its greedy text differs from torch's where torch is not in doubt",
            "nothing was published; report this",
        )


def _fallen_back(quantization: str, tensors: list[str]) -> list[str]:
    if not tensors:
        return []
    return [
        f"{quantization}: {len(tensors)} tensors are F16, for example {tensors[0]}: their rows do not divide into blocks of 32."
    ]


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
        "quantization": quantization, "file": path.name, "bytes": path.stat().st_size, "kl_divergence": float(f"{result.kl:.3g}"),
        "top1_agreement": result.top1, "same_greedy_text": result.same_greedy_text, "positions": result.positions,
        "token_mismatches": len(result.mismatches), "strings": strings,
    }  # fmt: skip


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
