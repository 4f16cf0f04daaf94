"""The manifest of an artifact: what it is, what it was made from, and every file with its sha256.

A manifest is read from a disk that others may write to, and its words end up in paths, messages and commands. So each field that does is
held to a narrow form here, and a file that is no manifest is a ValueError whatever is in it.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from data_contracts.files import is_plain, shown
from data_contracts.json_files import plain_json
from data_contracts.store.identity import ID_DIGITS, Identity, canonical

MANIFEST = "manifest.json"
TYPE_KEYS = AliasChoices("artifact_type", "noun")  # groundup 0.1 writes noun
MAX_BYTES = 64 << 20  # of a manifest: some 300,000 files
MAX_VALUES = 2_000_000  # a file has seven, so there may be some 280,000 files

M = TypeVar("M", bound=BaseModel)
Name = Annotated[
    str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")
]  # of an artifact type, a stage, an input, a table
ArtifactId = Annotated[str, Field(pattern=rf"^[0-9a-f]{{{ID_DIGITS}}}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Moment = Annotated[
    str, Field(pattern=r"^[0-9A-Za-z:.+ -]{0,40}$")
]  # ISO 8601; nothing that a terminal obeys


def _plain(path: str) -> str:
    if not is_plain(path):
        raise ValueError(f"{path!r} is not a plain relative path")
    return path


def _each_once(files: list[FileEntry]) -> list[FileEntry]:
    if len({entry.path for entry in files}) != len(files):
        raise ValueError("a file is listed twice")
    return files


def parse_as(model: type[M], text: str | bytes) -> M:
    """An entry of the store from its JSON. Raises ValueError that says in one line which fields are wrong."""
    try:
        return model.model_validate(plain_json(text, MAX_VALUES))
    except ValidationError as error:
        wrong = [
            f"{'.'.join(map(str, one['loc']))}: {one['msg']}"
            for one in error.errors(include_url=False)
        ]
        raise ValueError("; ".join(shown(line)[:200] for line in wrong[:5])) from None


class _Frozen(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="ignore", populate_by_name=True
    )  # a newer release may say more


class FileEntry(_Frozen):
    """path is relative to the artifact, with forward slashes, and stays inside it."""

    path: Annotated[str, AfterValidator(_plain)]
    bytes: int = Field(ge=0)
    sha256: Sha256


class InputRef(_Frozen):
    """What an artifact was made from. manifest_sha256: of the input's manifest at that time; None in artifacts of 0.1."""

    artifact_type: Name = Field(validation_alias=TYPE_KEYS)
    id: ArtifactId
    manifest_sha256: Sha256 | None = None


class Manifest(_Frozen):
    """Everything that is known of an artifact. Written last: an artifact without it does not exist.

    config: what of the settings bears on the result, as it entered the id. settings: all of them, as they were given.
    """

    groundup: str = Field(pattern=r"^[0-9A-Za-z.+!_-]{1,64}$")
    id: ArtifactId
    artifact_type: Name = Field(validation_alias=TYPE_KEYS)
    contract: str = Field(pattern=r"^[0-9]{1,6}\.[0-9]{1,6}\.[0-9]{1,6}$")
    stage: Name
    stage_version: int = Field(ge=0)
    as_of: Moment | None
    config: dict[str, Any]
    settings: dict[str, Any]
    inputs: dict[Name, InputRef]
    rows: dict[Name, Annotated[int, Field(ge=0)]]
    facts: dict[str, Any]
    files: Annotated[list[FileEntry], AfterValidator(_each_once)]
    started: Moment
    finished: Moment

    @classmethod
    def parse(cls, text: str | bytes) -> Manifest:
        """Raises ValueError for what is no manifest: no JSON, a key twice, a path that leads out of the artifact …"""
        return parse_as(cls, text)

    @property
    def identity(self) -> Identity:
        """What the id is a hash of, as far as the manifest says."""
        inputs = {name: ref.id for name, ref in self.inputs.items()}
        return Identity(
            self.stage,
            self.stage_version,
            f"{self.artifact_type} {self.contract}",
            self.config,
            inputs,
            self.as_of,
        )

    @property
    def content(self) -> str:
        """One digest over all files: equal content, equal digest, whenever and wherever it was made."""
        return hashlib.sha256(
            canonical([(f.path, f.sha256) for f in self.files]).encode()
        ).hexdigest()

    @property
    def bytes(self) -> int:
        return sum(entry.bytes for entry in self.files)

    @property
    def seconds(self) -> float | None:
        """How long it took to make; None where the manifest does not say. A resumed training counts from its last start."""
        try:
            passed = datetime.fromisoformat(self.finished) - datetime.fromisoformat(self.started)
        except (ValueError, TypeError):  # no date, or one with a time zone and one without
            return None
        return max(0.0, passed.total_seconds())
