"""What to do about a source that gave no document.

The same reason needs a different repair for pages than for tables.
"""

from __future__ import annotations

from collections.abc import Mapping

from stages.crawl import formats
from stages.crawl.config import DatasetSource, FilesSource, PydocSource, WebSource

ARCHIVES = {".warc", ".arc"}
TEXT_FIELD = "set text_field to the field that holds the text"

_WEB = {
    "robots": "ask the site's owner, or choose other seeds",
    "media_type": "choose seeds that lead to HTML or text",
    "empty": "choose seeds that lead to pages with text",
    "timeout": "raise limits.timeout_seconds",
    "": "check the addresses in a browser",
}
_PYDOC = {
    "timeout": "raise limits.timeout_seconds",
    "": "see whether the pages are there: python -m pydoc -b",
}
_ARCHIVE = {
    "robots": "ask the owners of those pages, or name other archives",
    "http_status": "name archives with pages that were answered with status 200",
    "media_type": "name archives that hold HTML or text",
    "empty": "name archives whose pages hold text",
    "address_refused": "for Python's documentation use a source of kind pydoc",
    "unreadable_row": "its records are damaged: replace the archive",
    "": "name archives with records of type response",
}
_TABLE = {
    "empty": "check text_field: what it names holds nothing",
    "unreadable_row": TEXT_FIELD,
    "": "name files that have rows: these have none",
}
_WHOLE = {"": "name files that hold text: these are empty"}


def advice(source: WebSource | PydocSource | FilesSource | DatasetSource, reason: str) -> str:
    """Return what repairs it, for the most frequent reason of failure ("" without rows)."""
    return " or ".join(dict.fromkeys(fixes.get(reason, fixes[""]) for fixes in _of(source, reason)))


def _of(
    source: WebSource | PydocSource | FilesSource | DatasetSource, reason: str
) -> list[Mapping[str, str]]:
    """Return the advice that applies: of files that with the reason, or all if none has it."""
    if isinstance(source, WebSource):
        return [_WEB]
    if isinstance(source, PydocSource):
        return [_PYDOC]
    if isinstance(source, DatasetSource):
        return [_TABLE]
    kinds = {formats.kind(path) for path in source.found().files}
    whole = kinds & formats.WHOLE.keys()
    tables = kinds - ARCHIVES - whole
    every = [(_ARCHIVE, kinds & ARCHIVES), (_TABLE, tables), (_WHOLE, whole)]
    present: list[Mapping[str, str]] = [fixes for fixes, some in every if some]
    return [fixes for fixes in present if reason in fixes] or present
