"""Settings of crawl: a list of named sources, each of one kind."""

from __future__ import annotations

import platform
from functools import lru_cache
from importlib.metadata import packages_distributions, version
from os.path import expanduser
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from data_contracts import InputError
from stages.config import RegularExpression, Settings, StageConfig, execution
from stages.crawl.local_files import Found, found
from stages.documentation_server import is_documentation_server
from stages.file_digests import file_digests

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")]

# Not documentation: private modules (their public package shows the same text), tests, and
# programs that run when they are imported.
PYDOC_SKIP = [
    r"(^|\.)_",
    r"^(test|idlelib|turtledemo|lib2to3|antigravity|this)(\.|$)",
    r"\.(tests?|testing|conftest|externals|vendored|_vendor|experimental)(\.|$)",
]


# Builders of `datasets`, whose data_files are local.
_BUILDERS = frozenset({"arrow", "csv", "json", "parquet", "text"})


class WebLimits(Settings):
    """Where a crawl of web sites ends, and what it takes of a page."""

    max_pages: int = Field(1000, ge=1, le=100_000_000, description="Most addresses to request")
    max_pages_per_host: int = Field(
        1_000_000, ge=1, le=100_000_000, description="Most addresses to request from one host"
    )
    max_depth: int = Field(10, ge=0, le=1000, description="Links to follow from a seed at most")
    max_page_bytes: int = Field(
        4 << 20, ge=1024, le=1 << 30, description="Longer pages are cut here"
    )
    max_minutes: float = Field(
        60, gt=0, le=60 * 24 * 365, description="Time after which no new page is begun"
    )
    timeout_seconds: float = Field(
        30, gt=0, le=3600, description="Time for one request, from name look-up to last byte"
    )


class PydocLimits(Settings):
    """Where a crawl of the documentation server ends, and what it takes of a page."""

    max_pages: int = Field(20_000, ge=1, le=1_000_000, description="Pages to ask for at most")
    max_depth: int = Field(10, ge=0, le=100, description="Links to follow from the index at most")
    max_page_bytes: int = Field(
        4 << 20, ge=1024, le=1 << 30, description="Longer pages are cut here"
    )
    max_minutes: float = Field(
        30, gt=0, le=1440, description="Time after which no new page is begun"
    )
    timeout_seconds: float = Field(
        20, gt=0, le=600, description="Time for one page; importing its module may hang"
    )


class FilesLimits(Settings):
    """How much is taken of local files."""

    max_page_bytes: int = Field(
        16 << 20, ge=1024, le=1 << 30, description="Bytes after which a document is cut"
    )
    max_documents: int = Field(
        1_000_000_000, ge=1, le=1_000_000_000_000, description="Documents to take at most"
    )


class DatasetLimits(Settings):
    """How much is taken of a data set."""

    max_page_bytes: int = Field(
        16 << 20, ge=1024, le=1 << 30, description="Bytes after which a document is cut"
    )
    max_documents: int = Field(
        100_000, ge=1, le=1_000_000_000_000, description="Rows to take at most"
    )


class Pace(Settings):
    """How fast web sites are asked. It never changes what is collected."""

    delay_seconds: float = Field(
        1.0, ge=0, le=3600, description="Pause between requests to one host"
    )
    connections: int = Field(
        16, ge=1, le=1000, description="Requests under way at once, over all hosts"
    )
    per_host: int = Field(1, ge=1, le=100, description="Requests under way at once to one host")


def _moved(group: type[Settings], name: str) -> dict[str, str]:
    """Return the settings of a group that release 0.1 had outside it, under the same names."""
    return {setting: f"{name}.{setting}" for setting in group.model_fields}


class _Source(StageConfig):
    """Settings of one source. Its identity includes digests of what it reads outside the store."""


class WebSource(_Source):
    """Pages of web sites, from seeds along links."""

    RENAMED: ClassVar[dict[str, str]] = _moved(WebLimits, "limits") | _moved(Pace, "pace")

    kind: Literal["web"] = "web"
    name: Name = Field(description="Name of the source; a column of every document")
    seeds: list[str] = Field(min_length=1, description="Addresses to start from")
    scope: list[str] = Field(
        [],
        description="Address prefixes to stay within; empty: the hosts of the seeds, http and"
        " https",
    )
    skip: list[RegularExpression] = Field(
        [], description="Regular expressions; an address in which one is found is not followed"
    )
    allow_origins: list[str] = Field(
        [],
        description="Origins (http://127.0.0.1:8000) that may be private or loopback addresses;"
        " all others are refused",
    )
    limits: WebLimits = Field(
        WebLimits(), description="Where the crawl ends, and what it takes of a page"
    )
    respect_robots: bool = Field(True, description="Obey robots.txt (RFC 9309) and its Crawl-delay")
    honour_opt_out: bool = Field(
        True, description="Refuse pages that say noindex, noai, none or tdm-reservation"
    )
    contact: str = Field(
        "",
        max_length=200,
        description="Mail or web address of whoever crawls, sent with every request",
    )
    pace: Pace = execution(Pace(), "How fast the sites are asked")

    @field_validator("seeds", "scope", "allow_origins")
    @classmethod
    def _addresses(cls, values: list[str]) -> list[str]:
        from stages.crawl.urls import canonical

        for value in values:
            try:
                is_reserved = is_documentation_server(canonical(value))
            except ValueError as error:
                raise ValueError(f"{value!r} {error}") from None
            if is_reserved:
                raise ValueError(
                    f"{value!r} is the address of the built-in documentation server:"
                    " use a source of kind pydoc"
                )
        return values


class PydocSource(_Source):
    """Pages of the documentation server of the running Python, crawled over HTTP."""

    RENAMED: ClassVar[dict[str, str]] = _moved(PydocLimits, "limits")

    kind: Literal["pydoc"] = "pydoc"
    name: Name = Field("pydoc", description="Name of the source; a column of every document")
    packages: list[str] = Field(
        [], description="Installed packages to document beside the standard library, by import name"
    )
    skip: list[RegularExpression] = Field(
        PYDOC_SKIP,
        description="Regular expressions; a module in whose name one is found is left out",
    )
    limits: PydocLimits = Field(
        PydocLimits(), description="Where the crawl ends, and what it takes of a page"
    )
    servers: int = execution(0, "Server processes; 0: one per core, at most 4", ge=0, le=64)

    def identity(self) -> dict[str, Any]:
        """Return the settings, and the versions of what is documented.

        Raises:
            InputError: A package is not installed.
        """
        return super().identity() | {
            "python": platform.python_version(),
            "versions": {p: installed_version(p) for p in self.packages},
        }


class FilesSource(_Source):
    """Local files: txt, md, html, jsonl, csv, tsv, parquet, warc; all but parquet also as .gz."""

    RENAMED: ClassVar[dict[str, str]] = _moved(FilesLimits, "limits")

    kind: Literal["files"] = "files"
    name: Name = Field("files", description="Name of the source; a column of every document")
    paths: list[str] = Field(
        min_length=1, description="Files, folders or patterns such as data/**/*.jsonl.gz"
    )
    text_field: str = Field(
        "text",
        min_length=1,
        description="Field or column of JSON lines, CSV and Parquet that holds the text",
    )
    media_type: Literal["text/plain", "text/markdown", "text/html"] = Field(
        "text/plain", description="What that text is"
    )
    charset: str = Field(
        "",
        max_length=40,
        description="Character set of txt, md and html files; empty: found out by clean",
    )
    limits: FilesLimits = Field(FilesLimits(), description="How much is taken of the files")

    def found(self) -> Found:
        """Return the files meant by `paths`, and the links that are left out.

        Raises:
            InputError: A path leads to no file.
        """
        return found(self.name, self.paths)

    def identity(self) -> dict[str, Any]:
        """Return the settings, and the sha256 of every file."""
        return super().identity() | {"sha256": _sha256(self.found())}


class DatasetSource(_Source):
    """A data set that Hugging Face `datasets` can stream.

    It is on the Hub, in a local folder, or consists of local files for a builder such as json.
    """

    RENAMED: ClassVar[dict[str, str]] = _moved(DatasetLimits, "limits")

    kind: Literal["dataset"] = "dataset"
    name: Name = Field("dataset", description="Name of the source; a column of every document")
    dataset: str = Field(
        min_length=1,
        description="Name on the Hugging Face Hub, a folder, or json, parquet, csv, text with"
        " data_files",
    )
    subset: str = Field("", description="Configuration of the data set, if it has several")
    split: str = Field("train", min_length=1, description="Split to read")
    revision: str = Field(
        "", description="Commit of the data set; name one to be able to repeat the run"
    )
    data_files: list[str] = Field([], description="Files of the data set to read; empty: all")
    text_field: str = Field("text", min_length=1, description="Column that holds the text")
    media_type: Literal["text/plain", "text/markdown", "text/html"] = Field(
        "text/plain", description="What that text is"
    )
    limits: DatasetLimits = Field(DatasetLimits(), description="How much is taken of the data set")

    @property
    def folder(self) -> Path | None:
        """The folder that `dataset` names, if it is neither a name on the Hub nor a builder."""
        path = Path(expanduser(self.dataset))
        named = self.dataset.startswith((".", "/", "~")) or (
            path.is_dir() and self.dataset not in _BUILDERS
        )
        return path.absolute() if named else None

    @property
    def is_local(self) -> bool:
        """Whether all files are on this machine according to the settings."""
        here = self.folder is not None or self.dataset in _BUILDERS
        return here and not any("://" in pattern for pattern in self.data_files)

    def found(self) -> Found:
        """Return the local files that may be read, and the links that are left out.

        Raises:
            InputError: A path leads to no file.
        """
        patterns = [expanduser(pattern) for pattern in self.data_files if "://" not in pattern]
        if self.folder is not None:
            patterns = [str(self.folder / pattern) for pattern in patterns] or [str(self.folder)]
        elif self.dataset not in _BUILDERS:  # relative ones are of a repository on the Hub
            patterns = [pattern for pattern in patterns if Path(pattern).is_absolute()]
        return found(self.name, patterns)

    def identity(self) -> dict[str, Any]:
        """Return the settings, and the sha256 of every local file."""
        return super().identity() | {"sha256": _sha256(self.found())}


Source = Annotated[
    WebSource | PydocSource | FilesSource | DatasetSource, Field(discriminator="kind")
]


class CrawlConfig(StageConfig):
    """What to collect. The default is the documentation of the Python that runs this."""

    sources: list[Source] = Field(
        [PydocSource.model_validate({})],
        min_length=1,
        description="Where documents come from; names must differ",
    )

    @field_validator("sources")
    @classmethod
    def _names_differ(cls, sources: list[Any]) -> list[Any]:
        names = [source.name for source in sources]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two sources are called {', '.join(twice)}")
        return sources

    def identity(self) -> dict[str, Any]:
        """Return the settings. Raises InputError if a source reads something that is not there."""
        return {"sources": [source.identity() for source in self.sources]}


def installed_version(package: str) -> str:
    """Return the version of the distribution with the top-level package.

    Raises:
        InputError: The package is not installed.
    """
    found = _distributions().get(package)
    if not found:
        fix = (
            f"pip install it, or leave {package!r} out of crawl.sources packages"
            " (they are import names: sklearn, not scikit-learn)"
        )
        raise InputError(
            f"package {package!r}", "is not installed, so its documentation cannot be crawled", fix
        )
    return ", ".join(sorted({version(name) for name in found}))


@lru_cache(maxsize=1)
def _distributions() -> dict[str, list[str]]:
    return {package: list(names) for package, names in packages_distributions().items()}


def _sha256(found: Found) -> dict[str, str]:
    return {
        str(path): digest for path, digest in file_digests(found.files, "crawl.sources").items()
    }
