"""Local task files for lm-eval, rendered from evaluation items. Paths in them must be absolute, so they are made at run time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from data_contracts import Artifact, InputError

COLUMNS = ["id", "task", "question", "choices", "answer"]


def render(eval_items: Artifact, folder: Path, fits: Callable[[str], bool]) -> tuple[list[str], int]:
    """Write NAME.yaml and NAME.parquet into `folder` for every task among the items; returns the names, sorted.

    Items with a choice that does not fit into the model's context cannot be asked; their number is returned, too.
    Raises InputError if an item's answer is none of its choices.
    """
    folder.mkdir(parents=True, exist_ok=True)
    writers: dict[str, pq.ParquetWriter] = {}
    too_long = 0
    for batch in eval_items.batches("items", COLUMNS):
        _check(batch, eval_items)
        askable = pa.array([all(map(fits, choices)) for choices in batch.column("choices").to_pylist()], pa.bool_())
        too_long += askable.false_count
        batch = batch.filter(askable)
        for name in batch.column("task").unique().to_pylist():
            rows = batch.filter(pc.equal(batch.column("task"), name))
            if name not in writers:
                writers[name] = pq.ParquetWriter(folder / f"{name}.parquet", rows.schema)
            writers[name].write_batch(rows)
    for name, writer in writers.items():
        writer.close()
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(task_file(name, folder)), "utf-8")
    return sorted(writers), too_long


def task_file(name: str, folder: Path) -> dict[str, object]:
    """The settings of one multiple-choice task: the log-likelihood of every choice after the question and a space."""
    return {
        "task": name,
        "dataset_path": "parquet",
        "dataset_kwargs": {"data_files": {"test": str(folder.resolve() / f"{name}.parquet")}, "cache_dir": str(folder.resolve() / "cache")},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "question",
        "doc_to_choice": "choices",
        "doc_to_target": "answer",
        "target_delimiter": " ",
        "num_fewshot": 0,
        "metric_list": [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in ("acc", "acc_norm")],
        "metadata": {"version": 1.0},
    }


def _check(batch: pa.RecordBatch, eval_items: Artifact) -> None:
    wrong = pc.greater_equal(batch.column("answer"), pc.list_value_length(batch.column("choices")))
    if (row := pc.index(wrong, True).as_py()) >= 0:
        item = batch.slice(row, 1).to_pylist()[0]
        raise InputError(
            f"item {item['id']} of {eval_items}",
            f"answer {item['answer']} is none of its {len(item['choices'])} choices",
            "correct the benchmark file",
        )
