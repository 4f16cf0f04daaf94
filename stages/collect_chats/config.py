"""Settings of collect_chats."""

from __future__ import annotations

from os.path import expanduser
from pathlib import Path
from typing import Any, ClassVar, Literal

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
    """The sandbox that runs examples of the built-in documentation server.

    Only what an example really prints becomes an answer.
    """

    packages: bool = Field(
        False, description="Let examples import installed packages, not only the standard library"
    )
    seconds: float = Field(
        5.0, gt=0, le=600, description="Time limit of one example and its setup, in seconds"
    )


class NameSettings(Settings):
    """Which modules, classes and functions of API pages are asked about, and how."""

    skip: tuple[RegularExpression, ...] = Field(
        (), description="Names that match one of these patterns give no chats, e.g. '^os\\.sched_'"
    )
    forms: int = Field(
        1,
        ge=1,
        le=100,
        description="How many forms of a question to ask about each name, if there are so many",
    )


class ChatLimits(Settings):
    """How long chats may be, and how many one document may give."""

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


class CollectChatsConfig(StageConfig):
    """Which chats are made of the pages, and which files of your own are added."""

    RENAMED: ClassVar[dict[str, str]] = {
        "min_chars": "limits.min_chars",
        "max_chars": "limits.max_chars",
        "per_document": "limits.per_document",
    }

    kinds: tuple[Kind, ...] = Field(
        ("module", "signature", "parameters", "lookup", "doctest", "section", "prose", "identity"),
        description="Kinds of chats to make: module to doctest from API pages, section and prose"
        " from any page, identity from the settings",
    )
    pages: tuple[RegularExpression, ...] = Field(
        (), description="Use only pages whose address matches one of these patterns; empty: all"
    )
    names: NameSettings = Field(
        NameSettings(),
        description="Which names of API pages are asked about, and in how many forms",
    )
    files: tuple[str, ...] = Field(
        (),
        description="Your own chats: .jsonl or .parquet with `messages`,"
        " or with `prompt` and `response`",
    )
    questions: str = Field(
        "en",
        min_length=1,
        description="Forms of the questions: a language of the questions folder, or your own .yaml",
    )
    assistant_name: str = Field(
        "groundup",
        min_length=1,
        max_length=80,
        description="What the model calls itself in identity chats",
    )
    limits: ChatLimits = Field(
        ChatLimits(), description="How long chats may be, and how many one document may give"
    )
    heldout_share: float = Field(
        0.05,
        ge=0,
        le=0.9,
        description="Share of documents (and of rows of files) held out to measure sft",
    )
    always_train: tuple[RegularExpression, ...] = Field(
        (),
        description="Never hold out a page whose address matches one of these patterns",
    )
    doctest: DoctestSettings = Field(
        DoctestSettings(),
        description="What the examples of API pages may import, and how long they may run",
    )
    seed: int = Field(
        0,
        ge=0,
        description="Seed of the choice of question forms, of chats and of the held-out split",
    )
    workers: int = execution(0, "Processes; 0: one per core", ge=0, le=4096)

    def identity(self) -> dict[str, Any]:
        """Add the contents of the files and whether this system can run examples."""
        paths = {path: Path(expanduser(path)) for path in self.files}
        file_contents = file_digests(paths.values(), "collect_chats.files")
        questions_path = self.questions_path
        forms = file_digests([questions_path], "collect_chats.questions")[questions_path]
        return super().identity() | {
            "files": {name: file_contents[path] for name, path in paths.items()},
            "questions": [self.questions, forms],
            "examples_run": "doctest" in self.kinds and not missing(),
        }

    @property
    def questions_path(self) -> Path:
        """The YAML file of question forms. A name without suffix stands for one of the stage's own.

        Raises:
            ConfigError: The stage has no file of that name.
        """
        if self.questions.endswith((".yaml", ".yml")):
            return Path(expanduser(self.questions))
        path = QUESTIONS / f"{self.questions}.yaml"
        if not path.is_file():
            known = ", ".join(sorted(known_path.stem for known_path in QUESTIONS.glob("*.yaml")))
            raise ConfigError(
                "collect_chats.questions",
                f"there are no question forms called {self.questions!r}",
                f"use one of {known}, or the path of a .yaml like {QUESTIONS / 'en.yaml'}",
            )
        return path
