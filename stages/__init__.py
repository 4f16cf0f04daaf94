"""The map: one row per stage. Readable without importing torch or any stage.

Each stage is `run(config, *, <inputs by name>, out: Draft, report: Report) -> Facts` in its `stage.py`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from data_contracts import ConfigError
from stages.config import StageConfig


@dataclass(frozen=True)
class Input:
    """name: the argument of run(). noun: its contract. major: the contract's major version that the stage reads.

    role: which artifact of a named run is taken when none is given.
    """

    name: str
    noun: str
    role: str
    major: int = 1
    optional: bool = False


@dataclass(frozen=True)
class Stage:
    """One row of the map. version is the stage's own: raise it when the same settings give another result."""

    name: str
    version: int
    consumes: tuple[Input, ...]
    produces: str
    role: str
    config: str
    run: str
    reads_the_world: bool = False  # crawl and evaluate: a logical date makes another result

    @property
    def config_class(self) -> type[StageConfig]:
        return _load(self.config)

    @property
    def function(self) -> Callable[..., Any]:
        return _load(self.run)


def _stage(
    name: str, consumes: list[str], produces: str, *, version: int = 1, optional: tuple[str, ...] = (), reads_the_world: bool = False
) -> Stage:
    """`consumes` entries and `produces` are "noun", "role:noun" or, for an input bound elsewhere, "name=role:noun".

    A noun may be followed by the major version that is read: "raw_documents@2".
    """
    role, noun = _role_and_noun(produces)
    camel = "".join(part.capitalize() for part in name.split("_"))
    inputs = []
    for entry in consumes:
        argument, _, bound = entry.rpartition("=")
        bound_role, bound_noun = _role_and_noun(bound)
        inputs.append(Input(argument or bound_role, bound_noun, bound_role, int(entry.partition("@")[2] or 1), bound_role in optional))
    config, run = f"stages.{name}.config:{camel}Config", f"stages.{name}.stage:run"
    return Stage(name, version, tuple(inputs), noun, role, config, run, reads_the_world)


def _role_and_noun(text: str) -> tuple[str, str]:
    role, _, noun = text.partition("@")[0].rpartition(":")
    return role or noun, noun


_EVERYTHING = [
    "raw_documents@2", "clean_documents", "unique_documents", "eval_items", "training_documents", "tokenizer", "token_shards",
    "base_checkpoint:checkpoint", "conversations", "sft_checkpoint:checkpoint", "preferences", "dpo_checkpoint:checkpoint",
    "scores", "gguf_model",
]  # fmt: skip

STAGES: tuple[Stage, ...] = (
    #      verb                  consumes                                                         produces
    _stage("crawl",               [],                                                              "raw_documents", version=2,
                                                                                                   reads_the_world=True),
    _stage("clean",               ["raw_documents@2"],                                             "clean_documents"),
    _stage("dedup",               ["clean_documents"],                                             "unique_documents"),
    _stage("collect_evals",       ["unique_documents"],                                            "eval_items"),
    _stage("decontaminate",       ["unique_documents", "eval_items"],                              "training_documents"),
    _stage("train_tokenizer",     ["training_documents"],                                          "tokenizer"),
    _stage("pack",                ["training_documents", "unique_documents", "tokenizer"],         "token_shards"),
    _stage("pretrain",            ["token_shards", "tokenizer"],                                   "base_checkpoint:checkpoint", version=2),
    _stage("collect_chats",       ["training_documents"],                                          "conversations", version=2,
                                                                                                   optional=("training_documents",)),
    _stage("sft",                 ["checkpoint=base_checkpoint:checkpoint", "conversations", "token_shards"],
                                                                                                   "sft_checkpoint:checkpoint", version=2,
                                                                                                   optional=("token_shards",)),
    _stage("collect_preferences", ["checkpoint=sft_checkpoint:checkpoint", "conversations"],       "preferences", optional=(
        "sft_checkpoint", "conversations")),
    _stage("dpo",                 ["checkpoint=sft_checkpoint:checkpoint", "preferences"],         "dpo_checkpoint:checkpoint", version=2),
    _stage("evaluate",            ["checkpoint=dpo_checkpoint:checkpoint", "base_checkpoint:checkpoint", "eval_items", "conversations"],
                                                                                                   "scores", version=2,
                                                                                                   reads_the_world=True, optional=(
        "base_checkpoint", "conversations")),
    _stage("export_gguf",         ["checkpoint=dpo_checkpoint:checkpoint"],                        "gguf_model"),
    _stage("describe",            _EVERYTHING,                                                     "release", version=2, optional=tuple(
        _role_and_noun(entry)[0] for entry in _EVERYTHING)),
)  # fmt: skip

NAMES: tuple[str, ...] = tuple(stage.name for stage in STAGES)


def stage(name: str) -> Stage:
    """The row called `name`. Raises ConfigError with the nearest name."""
    for row in STAGES:
        if row.name == name:
            return row
    near = difflib.get_close_matches(name, NAMES, n=1, cutoff=0.4)
    fix = f"did you mean {near[0]!r}?" if near else f"choose from: {', '.join(NAMES)}"
    raise ConfigError(f"stage {name!r}", "there is none of that name", fix)


def _load(reference: str) -> Any:
    module, name = reference.split(":")
    return getattr(import_module(module), name)
