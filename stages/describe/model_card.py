"""The model card: a README.md as the Hugging Face hub reads it. Every figure is a manifest's or a table's."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from math import prod
from typing import Any

import yaml

from data_contracts import Artifact
from data_contracts.json_files import read_json
from data_contracts.tensor_files import safetensors_header
from stages.describe.config import UNKNOWN, DescribeConfig
from stages.describe.counts import Texts
from stages.reporting.markdown import folded, paragraphs, plain, quotation, settings, table

CHECKPOINTS = {
    "base_checkpoint": "Pretraining",
    "sft_checkpoint": "Instruction tuning",
    "dpo_checkpoint": "Preference optimization",
}
MOST_LANGUAGES = 20


def model_card(config: DescribeConfig, given: Mapping[str, Artifact], texts: Texts | None) -> str:
    """The text of README.md. `given` may hold any of the inputs of the stage."""
    parts = [
        front_matter(config, given, texts),
        f"# {plain(config.name)}\n\n{paragraphs(config.summary)}",
        "Every figure on this page was read from the manifests and tables of the run that made the model. What they cannot know says "
        f"{UNKNOWN} until a person fills it in.",
        _model(given),
        _use(config, given),
        _scores(given),
        _training(given),
        _files(given),
        _answers(given),
        "## Data\n\nSee [DATA.md](DATA.md). What was made from what: [lineage.json](lineage.json), [lineage.mmd](lineage.mmd).",
        _limits(config, given),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def front_matter(config: DescribeConfig, given: Mapping[str, Artifact], texts: Texts | None) -> str:
    """The YAML between dashes that the hub's filters read."""
    languages = (
        [language for language, _ in texts.by_language.most_common(MOST_LANGUAGES)] if texts else []
    )
    fields: dict[str, Any] = {
        "language": sorted(language for language in languages if language) or UNKNOWN,
        "license": config.license,
        "pipeline_tag": "text-generation",
        "library_name": "transformers",
        "tags": [
            "groundup",
            *(["gguf"] if "gguf_model" in given else []),
            *(["conversational"] if _tuned(given) else []),
        ],
    }
    return f"---\n{yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)}---"


def parameters(checkpoint: Artifact) -> int:
    """Weights in the safetensors files; a tied table is stored and counted once."""
    return sum(
        prod(shape)
        for path in checkpoint.files("weights")
        for shape in safetensors_header(path)[0].values()
    )


def newest(given: Mapping[str, Artifact]) -> Artifact | None:
    """The checkpoint that went through most stages."""
    return next((given[output] for output in reversed(CHECKPOINTS) if output in given), None)


def _tuned(given: Mapping[str, Artifact]) -> bool:
    return "sft_checkpoint" in given or "dpo_checkpoint" in given


def _model(given: Mapping[str, Artifact]) -> str:
    if (checkpoint := newest(given)) is None:
        return ""
    sizes = read_json(checkpoint.file("config"))
    rows = {
        "Architecture": sizes.get("model_type"),
        "Parameters": parameters(checkpoint),
        "Layers": sizes.get("num_hidden_layers"),
        "Width": sizes.get("hidden_size"),
        "Attention heads": sizes.get("num_attention_heads"),
        "Key and value heads": sizes.get("num_key_value_heads"),
        "Experts": sizes.get("num_experts"),
        "Context, tokens": sizes.get("max_position_embeddings"),
        "Vocabulary, tokens": sizes.get("vocab_size"),
        "Tied embeddings": bool(sizes.get("tie_word_embeddings")),
        "Checkpoint": f"`{checkpoint}`",
    }
    return "## The model\n\n" + table(
        ("", ""), [(key, value) for key, value in rows.items() if value is not None]
    )


def _use(config: DescribeConfig, given: Mapping[str, Artifact]) -> str:
    lines = ["## How to use it", f"Intended use: {paragraphs(config.intended_use)}"]
    if "gguf_model" in given:
        files = given["gguf_model"].read("quantizations", ["file"]).column("file").to_pylist()
        command = quotation(f"llama-cli -m {shlex.quote(files[0])} -cnv", "sh")
        lines.append(f"With llama.cpp:\n\n{command}")
    if newest(given) is not None:
        lines.append(
            "With transformers:\n\n```python\nfrom transformers import pipeline\n\n"
            'chat = pipeline("text-generation", model="PATH")\nprint(chat([{"role": "user", "content": "Hello"}]))\n```'
        )
    return "\n\n".join(lines)


def _scores(given: Mapping[str, Artifact]) -> str:
    if "scores" not in given:
        return f"## Evaluation\n\n{UNKNOWN}"
    head = ("task", "metric", "value", "stderr", "n", "baseline", "baseline_name")
    rows = given["scores"].read("scores", head).to_pylist()
    notes = "\n".join(
        f"- {plain(note)}" for note in given["scores"].manifest.facts.get("notes", [])
    )
    return "\n\n".join(
        part
        for part in ("## Evaluation", table(head, [list(row.values()) for row in rows]), notes)
        if part
    )


def _training(given: Mapping[str, Artifact]) -> str:
    trainings = {output: given[output] for output in CHECKPOINTS if output in given}
    if not trainings:
        return ""
    head = (
        "stage",
        "last step",
        "tokens",
        "first loss",
        "last loss",
        "last held-out loss",
        "held-out bits per byte",
    )
    rows = [(CHECKPOINTS[output], *_course(artifact)) for output, artifact in trainings.items()]
    parts = ["## Training", "![Loss](loss.svg)", table(head, rows)]
    parts += [
        folded(f"Settings: {CHECKPOINTS[output]}", settings(artifact.manifest))
        for output, artifact in trainings.items()
    ]
    return "\n\n".join(parts)


def _course(checkpoint: Artifact) -> tuple[Any, ...]:
    rows = checkpoint.read(
        "metrics", ["step", "tokens", "loss", "heldout_loss", "heldout_bits_per_byte"]
    ).to_pylist()

    def ends(column: str, which: int) -> Any:
        values = [row[column] for row in rows if row[column] is not None]
        return values[which] if values else None

    last = [ends(column, -1) for column in ("loss", "heldout_loss", "heldout_bits_per_byte")]
    return ends("step", -1), ends("tokens", -1), ends("loss", 0), *last


def _files(given: Mapping[str, Artifact]) -> str:
    if "gguf_model" not in given:
        return ""
    head = (
        "quantization",
        "file",
        "bytes",
        "kl_divergence",
        "top1_agreement",
        "same_greedy_text",
        "positions",
        "token_mismatches",
        "strings",
    )
    rows = given["gguf_model"].read("quantizations", head).to_pylist()
    told = "Each file was loaded in llama.cpp and compared with torch: mean KL divergence in nats per position over the whole vocabulary."
    return f"## GGUF files\n\n{told}\n\n{table(head, [list(row.values()) for row in rows])}"


def _answers(given: Mapping[str, Artifact]) -> str:
    samples = given["scores"].manifest.facts.get("samples", []) if "scores" in given else []
    parts = [
        f"{quotation(str(sample['prompt']))}\n\n{quotation(str(sample['answer']))}"
        for sample in samples
        if sample.get("answer")
    ]
    return "\n\n".join(["## Answers, greedy and unedited", *parts]) if parts else ""


def _limits(config: DescribeConfig, given: Mapping[str, Artifact]) -> str:
    notes = [
        (output, note)
        for output, artifact in given.items()
        if output != "scores"
        for note in artifact.manifest.facts.get("notes", [])
    ]
    lines = ["## Limits, licence, contact"]
    if notes:
        lines.append(
            "What the stages noted:\n\n"
            + "\n".join(f"- {output}: {plain(note)}" for output, note in notes)
        )
    lines.append(
        table(
            ("", ""),
            [
                ("Licence of the weights", config.license),
                ("Author", config.author),
                ("Contact", config.contact),
            ],
        )
    )
    lines.append(f"Known biases and risks: {UNKNOWN}")
    return "\n\n".join(lines)
