"""Settings of collect_chats."""

from __future__ import annotations

from os.path import expanduser
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from data_contracts import ConfigError
from stages.collect_chats.sandbox import missing
from stages.config import RegularExpression, Settings, StageConfig, execution
from stages.file_digests import file_digests

Kind = Literal[
    "module", "signature", "parameters", "lookup", "doctest", "section", "prose", "identity"
]

QUESTIONS = Path(__file__).parent / "questions"


class DoctestSettings(Settings):
    """Of the sandbox that runs examples of the built-in documentation server, so that only what they really print is learnt."""

    packages: bool = Field(
        False, description="Let examples import installed packages, not only the standard library"
    )
    seconds: float = Field(
        5.0, gt=0, le=600, description="Longest that the examples of one description may run"
    )


class NameSettings(Settings):
    """Which modules, classes and functions of API pages are asked about, and how."""

    skip: tuple[RegularExpression, ...] = Field(
        (), description="A name in which one of these is found gives no chats, e.g. '^os\\.sched_'"
    )
    forms: int = Field(
        1,
        ge=1,
        le=100,
        description="In how many forms a question about a name is put, as far as there are so many",
    )


class CollectChatsConfig(StageConfig):
    kinds: tuple[Kind, ...] = Field(
        ("module", "signature", "parameters", "lookup", "doctest", "section", "prose", "identity"),
        description="Chats to make: module to doctest of API pages, section and prose of any page, identity of the settings",
    )
    pages: tuple[RegularExpression, ...] = Field(
        (), description="Only pages in whose address one of these is found give chats; empty: all"
    )
    names: NameSettings = Field(
        NameSettings(),
        description="Which names of API pages are asked about, and in how many forms",
    )
    files: tuple[str, ...] = Field(
        (),
        description="Your own chats: .jsonl or .parquet with `messages`, or `prompt` and `response`",
    )
    questions: str = Field(
        "en",
        min_length=1,
        description="How questions are put: a language of the questions folder, or your own .yaml",
    )
    assistant_name: str = Field(
        "groundup",
        min_length=1,
        max_length=80,
        description="What the model calls itself in identity chats",
    )
    min_chars: int = Field(
        12,
        ge=1,
        le=100_000,
        description="Shortest answer taken from prose (a doctest's may be one character)",
    )
    max_chars: int = Field(
        360,
        ge=20,
        le=1_000_000,
        description="Longest question or answer; prose is cut to whole sentences within it",
    )
    per_document: int = Field(
        1000, ge=1, le=1_000_000, description="Most chats from one document, chosen by hash"
    )
    heldout_share: float = Field(
        0.05,
        ge=0,
        le=0.9,
        description="Share of documents (and of the rows of files) kept to measure sft",
    )
    always_train: tuple[RegularExpression, ...] = Field(
        (), description="A page in whose address one of these is found is never held out from sft"
    )
    doctest: DoctestSettings = Field(
        DoctestSettings(),
        description="With what the examples of API pages may be run, and how long",
    )
    seed: int = Field(
        0,
        ge=0,
        description="Seed of the choice of question forms, of chats and of the held-out split",
    )
    workers: int = execution(0, "Processes; 0: one per core", ge=0, le=4096)

    def identity(self) -> dict[str, Any]:
        """The contents of files count, not only their names, and whether examples can be run on this system."""
        places = {path: Path(expanduser(path)) for path in self.files}
        found = file_digests(places.values(), "collect_chats.files")
        forms = file_digests([self.questions_path], "collect_chats.questions")[self.questions_path]
        return super().identity() | {
            "files": {path: found[place] for path, place in places.items()},
            "questions": [self.questions, forms],
            "examples_run": "doctest" in self.kinds and not missing(),
        }

    @property
    def questions_path(self) -> Path:
        """The YAML file of question forms. A name without suffix is one of the stage's own.

        Raises ConfigError if there is none of that name.
        """
        if self.questions.endswith((".yaml", ".yml")):
            return Path(expanduser(self.questions))
        own = QUESTIONS / f"{self.questions}.yaml"
        if not own.is_file():
            known = ", ".join(sorted(path.stem for path in QUESTIONS.glob("*.yaml")))
            fix = f"use one of {known}, or the path of a .yaml like {QUESTIONS / 'en.yaml'}"
            raise ConfigError(
                "collect_chats.questions",
                f"there are no question forms called {self.questions!r}",
                fix,
            )
        return own
