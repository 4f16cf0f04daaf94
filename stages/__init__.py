"""The map: one row per stage, in the order in which a whole run executes them.

It can be read without importing torch or any stage. A stage is a folder with a `config.py`, whose
class is named after the stage, and a `stage.py` with
`run(config, *, <inputs by name>, out: Draft, report: Report) -> Facts`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from data_contracts import ConfigError

if TYPE_CHECKING:
    from stages.config import StageConfig


@dataclass(frozen=True)
class Input:
    """A named argument of a stage that takes an artifact.

    Attributes:
        name: The argument of `run`.
        artifact_type: The type that it takes. Default: the type of the same name.
        output: The output of a run that it takes if no artifact is given. Default: the output of
            the same name.
        major: The major version of the contract that the stage reads.
        optional: Whether the stage also runs without it.
    """

    name: str
    artifact_type: str = ""
    output: str = ""
    major: int = 1
    optional: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "artifact_type", self.artifact_type or self.name)
        object.__setattr__(self, "output", self.output or self.name)


@dataclass(frozen=True)
class Stage:
    """One row of the map.

    Attributes:
        name: The stage, and its folder.
        consumes: Its inputs.
        produces: The type of the artifact that it makes.
        output: What a run calls that artifact. Default: the name of its type.
        version: The stage's own version. Raise it when the same settings give another result.
        reads_the_world: Whether the stage reads what changes by itself, so that another logical
            date is another result.
        needs_torch: Whether the stage works on a model. A test makes sure that no other stage
            imports torch.
    """

    name: str
    consumes: tuple[Input, ...]
    produces: str
    output: str = ""
    version: int = 1
    reads_the_world: bool = False
    needs_torch: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "output", self.output or self.produces)

    @property
    def config_class(self) -> type[StageConfig]:
        """The class of its settings. Imports `config.py`."""
        camel_case = "".join(part.capitalize() for part in self.name.split("_"))
        module = import_module(f"stages.{self.name}.config")
        config_class: type[StageConfig] = getattr(module, f"{camel_case}Config")
        return config_class

    @property
    def function(self) -> Callable[..., Any]:
        """Its function `run`. Imports `stage.py`, and torch if the stage needs it."""
        run: Callable[..., Any] = import_module(f"stages.{self.name}.stage").run
        return run

    def input(self, name: str) -> Input | None:
        """Return the input called `name`; None if there is none."""
        for consumed in self.consumes:
            if consumed.name == name:
                return consumed
        return None


_BUILD: tuple[Stage, ...] = (
    Stage("crawl", consumes=(), produces="raw_documents", version=2, reads_the_world=True),
    Stage("clean", consumes=(Input("raw_documents", major=2),), produces="clean_documents"),
    Stage("dedup", consumes=(Input("clean_documents"),), produces="unique_documents"),
    Stage("collect_evals", consumes=(Input("unique_documents"),), produces="eval_items"),
    Stage(
        "decontaminate",
        consumes=(Input("unique_documents"), Input("eval_items")),
        produces="training_documents",
    ),
    Stage("train_tokenizer", consumes=(Input("training_documents"),), produces="tokenizer"),
    Stage(
        "pack",
        consumes=(Input("training_documents"), Input("unique_documents"), Input("tokenizer")),
        produces="token_shards",
    ),
    Stage(
        "pretrain",
        consumes=(Input("token_shards"), Input("tokenizer")),
        produces="checkpoint",
        output="base_checkpoint",
        version=2,
        needs_torch=True,
    ),
    Stage(
        "collect_chats",
        consumes=(Input("training_documents", optional=True),),
        produces="conversations",
        version=2,
    ),
    Stage(
        "sft",
        consumes=(
            Input("checkpoint", output="base_checkpoint"),
            Input("conversations"),
            Input("token_shards", optional=True),
        ),
        produces="checkpoint",
        output="sft_checkpoint",
        version=2,
        needs_torch=True,
    ),
    Stage(
        "collect_preferences",
        consumes=(
            Input("checkpoint", output="sft_checkpoint", optional=True),
            Input("conversations", optional=True),
        ),
        produces="preferences",
        needs_torch=True,
    ),
    Stage(
        "dpo",
        consumes=(Input("checkpoint", output="sft_checkpoint"), Input("preferences")),
        produces="checkpoint",
        output="dpo_checkpoint",
        version=2,
        needs_torch=True,
    ),
    Stage(
        "evaluate",
        consumes=(
            Input("checkpoint", output="dpo_checkpoint"),
            Input("base_checkpoint", artifact_type="checkpoint", optional=True),
            Input("eval_items"),
            Input("conversations", optional=True),
        ),
        produces="scores",
        version=2,
        reads_the_world=True,
        needs_torch=True,
    ),
    Stage(
        "export_gguf",
        consumes=(Input("checkpoint", output="dpo_checkpoint"),),
        produces="gguf_model",
        needs_torch=True,
    ),
)


def _all_outputs(rows: Iterable[Stage], majors: dict[str, int]) -> tuple[Input, ...]:
    """Return every output of these stages as an optional input of the same name."""
    return tuple(
        Input(row.output, row.produces, major=majors.get(row.produces, 1), optional=True)
        for row in rows
    )


STAGES: tuple[Stage, ...] = (
    *_BUILD,
    Stage(
        "describe",
        consumes=_all_outputs(_BUILD, {"raw_documents": 2}),
        produces="release",
        version=2,
    ),
)

NAMES: tuple[str, ...] = tuple(row.name for row in STAGES)


def stage(name: str) -> Stage:
    """Return the row called `name`.

    Raises:
        ConfigError: There is no such stage. The message has the most similar name.
    """
    for row in STAGES:
        if row.name == name:
            return row
    similar = difflib.get_close_matches(name, NAMES, n=1, cutoff=0.4)
    if similar:
        fix = f"did you mean {similar[0]!r}?"
    else:
        fix = f"choose from: {', '.join(NAMES)}"
    raise ConfigError(f"stage {name!r}", "there is no such stage", fix)
