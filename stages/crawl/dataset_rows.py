"""Rows of a data set that Hugging Face `datasets` streams. Runs in the process of `dataset_source`.

A data set consists of files of strangers, and of their README.md, which lists those files. So only
formats that hold nothing but rows are read; of a folder only the files inside it, of a repository
only its own; and what a row refers to (an image, a sound) is never opened.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import fields
from os.path import expanduser
from typing import Any

from data_contracts import InputError
from data_contracts.foreign_text import listed
from stages.crawl.config import DatasetSource
from stages.crawl.items import Items, Note, Taking

PLAIN_FORMATS = frozenset({"arrow", "csv", "json", "parquet", "text"})
# What a data set may say about how its files are read. Other settings of the readers could keep
# them busy for ever (`engine` with a pattern) or fill the memory (`chunksize`).
PLAIN_SETTINGS = frozenset({
    "column_names", "columns", "comment", "data_dir", "data_files", "decimal", "delimiter",
    "description", "doublequote", "encoding", "escapechar", "features", "field", "header",
    "keep_default_na", "keep_linebreaks", "lineterminator", "na_filter", "name", "names",
    "newlines_in_values", "quotechar", "quoting", "sep", "skipinitialspace", "skiprows",
    "thousands", "version",
})  # fmt: skip
_BATCH_ROWS = 64  # of Parquet: a whole row group at a time is what `datasets` would take


def read(source: DatasetSource, base: str, files: list[str]) -> Items:
    """Yield the rows from 1, up to max_documents.

    Args:
        source: The settings.
        base: The start of the address of each row.
        files: The local files that may be read.

    Raises:
        InputError: The data set is not available, has no such column, or is of another format.
    """
    where = f"crawl source {source.name}"
    taking = Taking(source.text_field, source.media_type, source.limits.max_page_bytes)
    for number, row in _numbered(source, where, files):
        if isinstance(row, Note):
            yield row
            continue
        if source.text_field not in row:
            fix = f"set text_field to one of: {listed(row)}"
            raise InputError(where, f"{source.dataset} has no column {source.text_field!r}", fix)
        yield taking.row(
            f"{base}/{source.subset or 'default'}/{source.split}#{number}", row[source.text_field]
        )
        if number == source.limits.max_documents:
            return


def _numbered(source: DatasetSource, where: str, files: list[str]) -> Iterator[tuple[int, Any]]:
    """Yield rows from 1, and before them, as 0, a note if files were left out.

    Only errors of reading are reported as errors of the data set.
    """
    from datasets import load_dataset_builder  # seconds to import, and only this source needs it

    if source.is_local:
        sys.addaudithook(_refuse_network)
    number = 0
    try:
        builder = load_dataset_builder(
            str(source.folder or source.dataset),
            source.subset or None,
            revision=source.revision or None,
            data_files=[expanduser(file) for file in source.data_files] or None,
        )
        left_out = _keep_own_files(builder, source, where, frozenset(files))
        if left_out:
            yield 0, Note(left_out)
        for number, row in enumerate(_stream(builder, source.split), 1):
            yield number, row
    # `datasets` raises these for absent, private and broken data sets, and its readers for settings
    # of a data set that are of no use.
    except (OSError, ValueError, RuntimeError, TypeError, LookupError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        why = f"{source.dataset} cannot be read at row {number + 1:,}: {reason}"[:600]
        fix = "check the name, the revision and the network; gated data sets need `hf auth login`"
        raise InputError(where, why, fix) from None


def _stream(builder: Any, split: str) -> Any:
    stream = builder.as_streaming_dataset(split=split)
    return stream.decode(False) if stream.features else stream


def _keep_own_files(builder: Any, source: DatasetSource, where: str, files: frozenset[str]) -> str:
    """Remove from the builder the files that do not belong to the data set.

    Returns:
        A note about the files that were removed, or "".

    Raises:
        InputError: The format holds more than rows, or no file is left of the split.
    """
    from datasets.data_files import DataFilesDict, DataFilesList

    form = type(builder).__module__.split(".")[-1]
    if form not in PLAIN_FORMATS:
        fix = f"convert it to one of {', '.join(sorted(PLAIN_FORMATS))}"
        raise InputError(
            where, f"{source.dataset} is of the format {form!r}, which is not read", fix
        )
    _require_plain_settings(builder.config, where, str(source.dataset))
    if form == "parquet":
        builder.config.batch_size = _BATCH_ROWS
    left_out: list[str] = []
    kept = {}
    for split, found in (builder.config.data_files or {}).items():
        own = [file for file in found if _is_own(file, source, files)]
        left_out += [file for file in found if file not in own]
        if own:
            kept[split] = DataFilesList(own, found.origin_metadata)
    if left_out and source.split not in kept:
        why = (
            f"names {len(left_out):,} files that are not its own, and no others:"
            f" {', '.join(left_out[:3])}"
        )
        raise InputError(
            where, f"{source.dataset} {why}", "name those files in data_files if you trust them"
        )
    builder.config.data_files = DataFilesDict(kept)
    if not left_out:
        return ""
    return (
        f"{source.name}: {len(left_out):,} files that are not the data set's own were left out:"
        f" {', '.join(left_out[:3])}"
    )


def _require_plain_settings(config: Any, where: str, dataset: str) -> None:
    """Refuse settings of the reader that could keep it busy for ever, or fill the memory.

    Raises:
        InputError: The README.md of the data set has such a setting.
    """
    refused = []
    for field in fields(config):
        value = getattr(config, field.name)
        if field.name not in PLAIN_SETTINGS and value != field.default:
            refused.append(field.name)
        # pandas takes a longer separator for a pattern
        is_separator = field.name in ("sep", "delimiter")
        if is_separator and value is not None and len(str(value)) != 1:
            refused.append(field.name)
    if refused:
        raise InputError(
            where,
            f"the README.md of {dataset} sets {', '.join(refused)},"
            " which could keep the reader busy for ever or fill the memory",
            "remove these settings from a copy of the data set, or name its files as kind: files",
        )


def _is_own(file: str, source: DatasetSource, files: frozenset[str]) -> bool:
    if source.is_local or "://" not in file:
        return file.removeprefix("file://") in files
    return file.startswith(f"hf://datasets/{source.dataset}@") or file in source.data_files


def _refuse_network(event: str, arguments: tuple[Any, ...]) -> None:
    """Refuse connections: a local data set has no reason to make any, whatever its files name."""
    if event == "socket.connect" or event.startswith("socket.getaddrinfo"):
        raise PermissionError(
            "a local data set asks for something over the network, which is refused"
        )
