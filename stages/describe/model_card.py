"""The model card: a README.md in the format of the Hugging Face hub.

Every figure comes from a manifest or a table.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import yaml

from data_contracts import Artifact, ArtifactError
from data_contracts.checkpoint_config import CheckpointConfig
from data_contracts.tensor_files import safetensors_header
from stages.describe.config import UNKNOWN, DescribeConfig
from stages.describe.counts import Texts
from stages.reporting.markdown import folded, paragraphs, plain, quotation, settings, table

CHECKPOINTS = {
    "base_checkpoint": "Pretraining",
    "sft_checkpoint": "Instruction tuning",
    "dpo_checkpoint": "Preference optimization",
}
MAX_LANGUAGES = 20
SCORES = ("task", "metric", "value", "stderr", "n", "baseline", "baseline_name")
QUANTIZATIONS = (
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
TRAININGS = (
    "stage",
    "last step",
    "tokens",
    "first loss",
    "last loss",
    "last held-out loss",
    "held-out bits per byte",
)
WITH_TRANSFORMERS = """With transformers:

```python
from transformers import pipeline

chat = pipeline("text-generation", model="PATH")
print(chat([{"role": "user", "content": "Hello"}]))
```"""


def model_card(config: DescribeConfig, given: Mapping[str, Artifact], texts: Texts | None) -> str:
    """Return the text of README.md.

    Args:
        config: The entries of the cards that no manifest contains.
        given: Any of the inputs of the stage.
        texts: Counts of the training text; None if it is not among the inputs.
    """
    parts = [
        front_matter(config, given, texts),
        f"# {plain(config.name)}\n\n{paragraphs(config.summary)}",
        "Every figure on this page was read from the manifests and tables of the run that made "
        f"the model. What they cannot know says {UNKNOWN} until a person fills it in.",
        _model(given),
        _use(config, given),
        _scores(given),
        _training(given),
        _files(given),
        _answers(given),
        "## Data\n\nSee [DATA.md](DATA.md). What was made from what: "
        "[lineage.json](lineage.json), [lineage.mmd](lineage.mmd).",
        _limits(config, given),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def front_matter(config: DescribeConfig, given: Mapping[str, Artifact], texts: Texts | None) -> str:
    """Return the YAML between dashes that the filters of the Hugging Face hub read.

    Args:
        config: The entries of the cards that no manifest contains.
        given: Any of the inputs of the stage.
        texts: Counts of the training text; None if it is not among the inputs.
    """
    tags = ["groundup"]
    if "gguf_model" in given:
        tags.append("gguf")
    if "sft_checkpoint" in given or "dpo_checkpoint" in given:
        tags.append("conversational")
    fields: dict[str, Any] = {
        "language": _languages(texts) or UNKNOWN,
        "license": config.license,
        "pipeline_tag": "text-generation",
        "library_name": "transformers",
        "tags": tags,
    }
    return f"---\n{yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)}---"


def _languages(texts: Texts | None) -> list[str]:
    """Return the most frequent languages of the training text, sorted by name."""
    if texts is None:
        return []
    languages = [language for language, _ in texts.by_language.most_common(MAX_LANGUAGES)]
    return sorted(language for language in languages if language)


def parameters(checkpoint: Artifact) -> int:
    """Count the weights in the safetensors files. A tied table is stored, and counted, once.

    Args:
        checkpoint: A checkpoint.
    """
    weights = 0
    for path in checkpoint.files("weights"):
        shapes = safetensors_header(path)[0].values()
        weights += sum(prod(shape) for shape in shapes)
    return weights


def latest_checkpoint(given: Mapping[str, Artifact]) -> Artifact | None:
    """Return the checkpoint of the last training stage among the inputs."""
    for output in reversed(CHECKPOINTS):
        if output in given:
            return given[output]
    return None


def _model(given: Mapping[str, Artifact]) -> str:
    checkpoint = latest_checkpoint(given)
    if checkpoint is None:
        return ""
    sizes = _read_config(checkpoint)
    entries = {
        "Architecture": sizes.family.name,
        "Parameters": parameters(checkpoint),
        "Layers": sizes.num_hidden_layers,
        "Width": sizes.hidden_size,
        "Attention heads": sizes.num_attention_heads,
        "Key and value heads": sizes.num_key_value_heads,
        "Experts": sizes.num_experts or None,
        "Context, tokens": sizes.max_position_embeddings,
        "Vocabulary, tokens": sizes.vocab_size,
        "Tied embeddings": sizes.tie_word_embeddings,
        "Checkpoint": f"`{checkpoint}`",
    }
    rows = [(name, value) for name, value in entries.items() if value is not None]
    return f"## The model\n\n{table(('', ''), rows)}"


def _read_config(checkpoint: Artifact) -> CheckpointConfig:
    try:
        return CheckpointConfig.read(checkpoint.path)
    except ValueError as error:
        raise ArtifactError(f"{checkpoint}", f"{error}", "make the checkpoint again") from None


def _use(config: DescribeConfig, given: Mapping[str, Artifact]) -> str:
    parts = ["## How to use it", f"Intended use: {paragraphs(config.intended_use)}"]
    if "gguf_model" in given:
        files = given["gguf_model"].read("quantizations", ["file"]).column("file").to_pylist()
        command = quotation(f"llama-cli -m {shlex.quote(files[0])} -cnv", "sh")
        parts.append(f"With llama.cpp:\n\n{command}")
    if latest_checkpoint(given) is not None:
        parts.append(WITH_TRANSFORMERS)
    return "\n\n".join(parts)


def _scores(given: Mapping[str, Artifact]) -> str:
    if "scores" not in given:
        return f"## Evaluation\n\n{UNKNOWN}"
    scores = given["scores"]
    parts = ["## Evaluation", _table_of(scores, "scores", SCORES)]
    notes = [f"- {plain(note)}" for note in scores.manifest.facts.get("notes", [])]
    if notes:
        parts.append("\n".join(notes))
    return "\n\n".join(parts)


def _training(given: Mapping[str, Artifact]) -> str:
    trainings = {title: given[output] for output, title in CHECKPOINTS.items() if output in given}
    if not trainings:
        return ""
    rows = [(title, *_losses(checkpoint)) for title, checkpoint in trainings.items()]
    parts = ["## Training", "![Loss](loss.svg)", table(TRAININGS, rows)]
    for title, checkpoint in trainings.items():
        parts.append(folded(f"Settings: {title}", settings(checkpoint.manifest)))
    return "\n\n".join(parts)


def _losses(checkpoint: Artifact) -> tuple[Any, ...]:
    """Return the cells of TRAININGS after the first for one checkpoint."""
    columns = ["step", "tokens", "loss", "heldout_loss", "heldout_bits_per_byte"]
    rows = checkpoint.read("metrics", columns).to_pylist()
    known: dict[str, list[Any]] = {}
    for column in columns:
        values = [row[column] for row in rows]
        known[column] = [value for value in values if value is not None] or [None]
    return (
        known["step"][-1],
        known["tokens"][-1],
        known["loss"][0],
        known["loss"][-1],
        known["heldout_loss"][-1],
        known["heldout_bits_per_byte"][-1],
    )


def _files(given: Mapping[str, Artifact]) -> str:
    if "gguf_model" not in given:
        return ""
    return (
        "## GGUF files\n\n"
        "Each file was loaded in llama.cpp and compared with torch: mean KL divergence in nats per "
        "position over the whole vocabulary.\n\n"
        f"{_table_of(given['gguf_model'], 'quantizations', QUANTIZATIONS)}"
    )


def _table_of(artifact: Artifact, name: str, columns: Sequence[str]) -> str:
    rows = artifact.read(name, columns).to_pylist()
    return table(columns, [list(row.values()) for row in rows])


def _answers(given: Mapping[str, Artifact]) -> str:
    if "scores" not in given:
        return ""
    parts = ["## Answers, greedy and unedited"]
    for sample in given["scores"].manifest.facts.get("samples", []):
        if sample.get("answer"):
            parts.append(quotation(str(sample["prompt"])))
            parts.append(quotation(str(sample["answer"])))
    return "\n\n".join(parts) if len(parts) > 1 else ""


def _limits(config: DescribeConfig, given: Mapping[str, Artifact]) -> str:
    notes: list[str] = []
    for output, artifact in given.items():
        if output != "scores":  # whose notes are beside the scores
            texts = artifact.manifest.facts.get("notes", [])
            notes += [f"- {output}: {plain(text)}" for text in texts]
    parts = ["## Limits, licence, contact"]
    if notes:
        parts += ["What the stages noted:", "\n".join(notes)]
    rows = [
        ("Licence of the weights", config.license),
        ("Author", config.author),
        ("Contact", config.contact),
    ]
    parts += [table(("", ""), rows), f"Known biases and risks: {UNKNOWN}"]
    return "\n\n".join(parts)
