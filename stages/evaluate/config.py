"""Settings of the evaluation."""

from __future__ import annotations

from os.path import expanduser
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from stages.config import Settings, StageConfig, execution
from stages.evaluate import task_files
from stages.file_digests import file_digests


def _checked_wording(wording: str) -> str:
    """Refuse a wording without {name}, or with another field."""
    try:
        asked = wording.format(name="json.dumps")
    except (LookupError, ValueError, AttributeError):
        asked = ""
    if "json.dumps" not in asked:
        raise ValueError("must hold {name}, and no other {…}")
    return wording


class RecallSettings(Settings):
    """Names that the model is asked about, to see what it remembers of what it was tuned on."""

    names: tuple[str, ...] = Field(
        (),
        description="Documented names to ask about, e.g. json.dumps; the expected answers are "
        "those of the conversations; empty: none",
    )
    wording: Annotated[str, AfterValidator(_checked_wording)] = Field(
        "Tell me what {name} is used for.",
        description="The second wording of each question, which is in no conversation",
    )
    new_tokens: int = Field(64, ge=1, le=4096, description="Longest answer, in tokens")


class EvaluateConfig(StageConfig):
    """What to evaluate the model on. All items and pages of eval_items are always included."""

    tasks: list[str] = Field(
        [],
        description="Further lm-eval tasks: names, e.g. arc_easy, with data from the Hugging Face "
        "hub, or paths of task files (.yaml)",
    )
    allow_code: bool = Field(
        False,
        description="Run the Python and the templates that a task file asks for, and metrics that "
        "lm-eval takes from a hub",
    )
    unreachable: Literal["note", "error"] = Field(
        "note", description="What to do about a further task that cannot be loaded or evaluated"
    )
    limit: int | None = Field(
        None, ge=1, description="Use only this many items of each task, and this many pages"
    )
    max_length: int | None = Field(
        None,
        ge=2,
        le=1 << 20,
        description="Tokens that the model sees at once; none: its whole context",
    )
    stride: int | None = Field(
        None,
        ge=1,
        le=1 << 20,
        description="Tokens of a page scored per window; fewer give more context but take longer; "
        "none: half of max_length",
    )
    prompts: list[str] = Field(
        ["Hello! Who are you?", "What does the function do?", "Give an example."],
        description="Prompts for the sample answers (greedy)",
    )
    new_tokens: int = Field(64, ge=1, le=4096, description="Longest sample answer, in tokens")
    recall: RecallSettings = Field(
        RecallSettings(),
        description="Questions about documented names, scored against their documentation",
    )
    seed: int = Field(
        0, ge=0, lt=1 << 32, description="Seed of tasks that draw examples or sample text"
    )
    batch_size: int = execution(8, "Sequences per forward pass", ge=1, le=4096)
    device: str = execution(
        "auto", "auto, cpu, cuda, cuda:1 …", pattern=r"^(auto|cpu|cuda(:\d+)?)$"
    )

    def identity(self) -> dict[str, Any]:
        """Return the settings, with each task file as its name and the digest of its content.

        The folder of the file does not count, nor do the data and functions that it names.

        Raises:
            InputError: A file does not exist.
            ConfigError: A file would run code, and `allow_code` is not set.
        """
        paths = [task_file(task) for task in self.tasks]
        files = [path for path in paths if path is not None]
        digests = file_digests(files, "evaluate.tasks")
        if not self.allow_code:
            for file in files:
                task_files.check(file)
        tasks: list[Any] = []
        for task, path in zip(self.tasks, paths, strict=True):
            tasks.append(task if path is None else [path.name, digests[path]])
        return super().identity() | {"tasks": tasks}


def task_file(task: str) -> Path | None:
    """Return the path of the file that an entry of `tasks` means; None for a name of lm-eval."""
    if not task.endswith((".yaml", ".yml")):
        return None
    return Path(expanduser(task))
