"""The manifest of an artifact: what it is, what it was made from, and every file with its sha256.

Others may write to the disk that a manifest is read from, and its values end up in paths, messages
and commands. So each such field must match a narrow pattern, and any other file is a ValueError.
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
TYPE_KEYS = AliasChoices("artifact_type", "noun")  # groundup 0.1 wrote this as noun
MAX_BYTES = 64 << 20  # of a manifest: some 300,000 files
MAX_VALUES = 2_000_000  # a file has seven, so there may be some 280,000 files
_MAX_FAULTS = 5  # fields that an error names
_MAX_FAULT = 200  # characters of each

M = TypeVar("M", bound=BaseModel)

# The name of an artifact type, a stage, an input or a table.
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
ArtifactId = Annotated[str, Field(pattern=rf"^[0-9a-f]{{{ID_DIGITS}}}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
# ISO 8601, and nothing that a terminal obeys.
Moment = Annotated[str, Field(pattern=r"^[0-9A-Za-z:.+ -]{0,40}$")]


def _plain(path: str) -> str:
    if not is_plain(path):
        raise ValueError(f"{path!r} is not a plain relative path")
    return path


def _each_once(files: list[FileEntry]) -> list[FileEntry]:
    if len({entry.path for entry in files}) != len(files):
        raise ValueError("a file is listed twice")
    return files


def parse_as(model: type[M], text: str | bytes) -> M:
    """Parse an entry of the store from its JSON.

    Args:
        model: What kind of entry it is.
        text: The JSON.

    Raises:
        ValueError: The message says in one line which fields are wrong.
    """
    try:
        return model.model_validate(plain_json(text, MAX_VALUES))
    except ValidationError as error:
        faults = error.errors(include_url=False)[:_MAX_FAULTS]
    lines = []
    for fault in faults:
        where = ".".join(map(str, fault["loc"]))
        lines.append(shown(f"{where}: {fault['msg']}")[:_MAX_FAULT])
    raise ValueError("; ".join(lines))


class _Frozen(BaseModel):
    # A newer release may add fields.
    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)


class FileEntry(_Frozen):
    """A file of an artifact.

    Attributes:
        path: Relative to the artifact, with forward slashes. It stays inside the artifact.
        bytes: Its size.
        sha256: Its digest, in hex.
    """

    path: Annotated[str, AfterValidator(_plain)]
    bytes: int = Field(ge=0)
    sha256: Sha256


class InputRef(_Frozen):
    """An artifact that another one was made from.

    Attributes:
        artifact_type: Its type.
        id: Its id.
        manifest_sha256: Digest of its manifest at that time; None in artifacts of 0.1.
    """

    artifact_type: Name = Field(validation_alias=TYPE_KEYS)
    id: ArtifactId
    manifest_sha256: Sha256 | None = None


class Manifest(_Frozen):
    """Everything that is known of an artifact.

    It is written last, so an artifact without it does not exist.

    Attributes:
        groundup: The release that made it.
        id: Its id: a hash of `identity`.
        artifact_type: Its type.
        contract: The version of the contract that it was written under.
        stage: The stage that made it.
        stage_version: The stage's version.
        as_of: Its logical date.
        config: The settings that have an effect on the result, as they entered the id.
        settings: All settings, as they were given.
        inputs: What it was made from, by input name.
        rows: Rows of each table.
        facts: What the stage found: figures, reasons of rejection, samples, notes.
        files: Every file, once.
        started: When the stage started.
        finished: When it finished.
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
        """Parse a manifest.

        Raises:
            ValueError: It is not one: it is not JSON, a key is repeated, a path leads out of the
                artifact …
        """
        return parse_as(cls, text)

    @property
    def identity(self) -> Identity:
        """What the id is a hash of, as far as the manifest says."""
        inputs = {name: ref.id for name, ref in self.inputs.items()}
        return Identity(
            stage=self.stage,
            stage_version=self.stage_version,
            contract=f"{self.artifact_type} {self.contract}",
            config=self.config,
            inputs=inputs,
            as_of=self.as_of,
        )

    @property
    def content(self) -> str:
        """One digest over all files: equal content has an equal digest."""
        files = [(entry.path, entry.sha256) for entry in self.files]
        return hashlib.sha256(canonical(files).encode()).hexdigest()

    @property
    def bytes(self) -> int:
        """The size of all files."""
        return sum(entry.bytes for entry in self.files)

    @property
    def seconds(self) -> float | None:
        """How long it took to make, in seconds; None if the manifest does not say.

        A resumed training counts from its last start.
        """
        try:
            taken = datetime.fromisoformat(self.finished) - datetime.fromisoformat(self.started)
        except (ValueError, TypeError):  # not a date, or only one of them has a time zone
            return None
        return max(0.0, taken.total_seconds())
