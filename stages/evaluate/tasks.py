"""Local task files for lm-eval, rendered from evaluation items. Paths in them must be absolute, so they are made at run time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from data_contracts import Artifact, InputError

PAGES = "heldout_pages"
BASE_PAGES = "heldout_pages_base"  # the same pages, read by the model before it learned to chat
POOLED = "all_items"
RESERVED = (PAGES, BASE_PAGES, POOLED)  # what the stage calls scores of its own
COLUMNS = ["id", "task", "question", "choices", "answer"]


@dataclass(frozen=True)
class Rendered:
    """names: sorted. too_long: items left out, since a choice alone fills the context. cut: items asked without their beginning."""

    names: list[str]
    too_long: int
    cut: int


def render(
    eval_items: Artifact, folder: Path, tokens: Callable[[str], int], length: int
) -> Rendered:
    """Write NAME.yaml and NAME.parquet into `folder` for every task among the items.

    tokens: how many the model reads for a text; it sees `length` at once, and lm-eval drops what is more at the beginning.
    Raises InputError if an item's answer is none of its choices, or a task has the name of a score of this stage.
    """
    folder.mkdir(parents=True, exist_ok=True)
    writers: dict[str, pq.ParquetWriter] = {}
    too_long = cut = 0
    for batch in eval_items.batches("items", COLUMNS):
        _check(batch, eval_items)
        askable = []
        for question, choices in zip(
            batch.column("question").to_pylist(), batch.column("choices").to_pylist(), strict=True
        ):
            longest = max(tokens(f"{question} {choice}") for choice in choices)
            askable.append(
                longest <= length or all(tokens(f" {choice}") < length for choice in choices)
            )
            cut += askable[-1] and longest > length + 1  # the last token is predicted, not read
        too_long += askable.count(False)
        batch = batch.filter(pa.array(askable, pa.bool_()))
        for name in batch.column("task").unique().to_pylist():
            rows = batch.filter(pc.equal(batch.column("task"), name))
            if name not in writers:
                writers[name] = pq.ParquetWriter(folder / f"{name}.parquet", rows.schema)
            writers[name].write_batch(rows)
    for name, writer in writers.items():
        writer.close()
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(settings(name, folder)), "utf-8")
    return Rendered(sorted(writers), too_long, cut)


def settings(name: str, folder: Path) -> dict[str, object]:
    """The settings of one multiple-choice task: the log-likelihood of every choice after the question and a space."""
    return {
        "task": name,
        "dataset_path": "parquet",
        "dataset_kwargs": {
            "data_files": {"test": str(folder.resolve() / f"{name}.parquet")},
            "cache_dir": str(folder.resolve() / "cache"),
        },
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "question",
        "doc_to_choice": "choices",
        "doc_to_target": "answer",
        "target_delimiter": " ",
        "num_fewshot": 0,
        "metric_list": [
            {"metric": name, "aggregation": "mean", "higher_is_better": True}
            for name in ("acc", "acc_norm")
        ],
        "metadata": {"version": 1.0},
    }


def _check(batch: pa.RecordBatch, eval_items: Artifact) -> None:
    if taken := sorted({*batch.column("task").unique().to_pylist()} & {*RESERVED}):
        why = f"its task is called {taken[0]!r}, as a score of this stage is"
        raise InputError(
            f"{eval_items}",
            why,
            "rename the benchmark file, then groundup stage collect_evals --name NAME --and-after",
        )
    wrong = pc.greater_equal(batch.column("answer"), pc.list_value_length(batch.column("choices")))
    if (row := pc.index(wrong, True).as_py()) >= 0:
        item = batch.slice(row, 1).to_pylist()[0]
        raise InputError(
            f"item {item['id']} of {eval_items}",
            f"answer {item['answer']} is none of its {len(item['choices'])} choices",
            "correct the benchmark file",
        )
