"""Local task files for lm-eval, rendered from evaluation items.

The paths in them must be absolute, so they are made at run time.
"""

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
RESERVED = (PAGES, BASE_PAGES, POOLED)  # names of scores that the stage itself computes
COLUMNS = ["id", "task", "question", "choices", "answer"]


@dataclass(frozen=True)
class RenderedTasks:
    """The tasks that were written.

    Attributes:
        names: Their names, sorted.
        too_long: Items left out because one of their choices alone fills the context.
        cut: Items asked without the beginning of their question.
    """

    names: list[str]
    too_long: int
    cut: int


def render(
    eval_items: Artifact, folder: Path, tokens: Callable[[str], int], length: int
) -> RenderedTasks:
    """Write NAME.yaml and NAME.parquet into `folder` for every task among the items.

    Args:
        eval_items: The items.
        folder: Where the files go.
        tokens: The number of tokens that the model reads for a text.
        length: Tokens that the model sees at once. lm-eval drops more than that at the beginning.

    Raises:
        InputError: The answer of an item is none of its choices, or a task has the name of a score
            that this stage computes itself.
    """
    folder.mkdir(parents=True, exist_ok=True)
    writers: dict[str, pq.ParquetWriter] = {}
    too_long = cut = 0
    for batch in eval_items.batches("items", COLUMNS):
        _check(batch, eval_items)
        fits, cut_here = _fitting(batch, tokens, length)
        too_long += fits.count(False)
        cut += cut_here
        fitting = batch.filter(pa.array(fits, pa.bool_()))
        for name in fitting.column("task").unique().to_pylist():
            rows = fitting.filter(pc.equal(fitting.column("task"), name))
            if name not in writers:
                writers[name] = pq.ParquetWriter(folder / f"{name}.parquet", rows.schema)
            writers[name].write_batch(rows)
    for name, writer in writers.items():
        writer.close()
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(settings(name, folder)), "utf-8")
    return RenderedTasks(sorted(writers), too_long, cut)


def _fitting(
    batch: pa.RecordBatch, tokens: Callable[[str], int], length: int
) -> tuple[list[bool], int]:
    """Return whether all choices of each item fit the context, and how many questions are cut."""
    questions, choice_lists = (batch.column(name).to_pylist() for name in ("question", "choices"))
    fits = []
    cut = 0
    for question, choices in zip(questions, choice_lists, strict=True):
        longest = max(tokens(f"{question} {choice}") for choice in choices)
        is_fitting = longest <= length or all(tokens(f" {choice}") < length for choice in choices)
        fits.append(is_fitting)
        if is_fitting and longest > length + 1:  # the last token is predicted, not read
            cut += 1
    return fits, cut


def settings(name: str, folder: Path) -> dict[str, object]:
    """Return the settings of one multiple-choice task.

    A choice is scored by its log-likelihood after the question and one space.

    Args:
        name: Name of the task.
        folder: The folder of its data.
    """
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
            {"metric": metric, "aggregation": "mean", "higher_is_better": True}
            for metric in ("acc", "acc_norm")
        ],
        "metadata": {"version": 1.0},
    }


def _check(batch: pa.RecordBatch, eval_items: Artifact) -> None:
    taken = sorted({*batch.column("task").unique().to_pylist()} & {*RESERVED})
    if taken:
        raise InputError(
            f"{eval_items}",
            f"its task is called {taken[0]!r}, as a score of this stage is",
            "rename the benchmark file, then groundup stage collect_evals --name NAME --and-after",
        )
    wrong = pc.greater_equal(batch.column("answer"), pc.list_value_length(batch.column("choices")))
    row = pc.index(wrong, True).as_py()
    if row >= 0:
        item = batch.slice(row, 1).to_pylist()[0]
        raise InputError(
            f"item {item['id']} of {eval_items}",
            f"answer {item['answer']} is none of its {len(item['choices'])} choices",
            "correct the benchmark file",
        )
