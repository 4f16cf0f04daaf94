"""Writes the rows of the artifact: ids, digests, shards, and the number of failures by reason."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import TYPE_CHECKING, Any, Self

from data_contracts import Draft
from stages.digests import digest

if TYPE_CHECKING:
    from data_contracts.store.writer import TableWriter

SHARD_BYTES = 32 << 20  # of bodies: later stages work on one shard at a time


def document_id(source: str, url: str) -> str:
    """Return the id that the contract prescribes."""
    return digest(source, url)


class Rows:
    """Writes documents and failures in the given order. Use as a context manager."""

    def __init__(self, out: Draft):
        self._out = out
        self._failures = out.writer("failures")
        self._fetches = out.writer("fetches")
        self._documents: TableWriter | None = None
        self._shard = -1
        self._shard_bytes = 0
        self.documents: Counter[str] = Counter()  # by source
        self.failed: dict[str, Counter[str]] = {}  # by source, then reason
        self.fixes: dict[tuple[str, str], Counter[str]] = {}  # by source and reason
        self.examples: dict[tuple[str, str, str], str] = {}  # the first by source, reason and fix
        self.bytes = 0
        self.truncated = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, value: Any, trace: Any) -> None:
        for writer in (self._documents, self._failures, self._fetches):
            if writer is not None:
                writer.__exit__(kind, value, trace)

    def document(
        self,
        source: str,
        url: str,
        body: bytes,
        *,
        depth: int = 0,
        redirects: tuple[str, ...] = (),
        fetch: dict[str, Any] | None = None,
        **evidence: Any,
    ) -> None:
        """Write a row of `documents` and, if the document was fetched, of `fetches`.

        Args:
            source: Name of the source.
            url: The address of the document.
            body: Its bytes.
            depth: Links from a seed.
            redirects: Addresses that redirect to it.
            fetch: The columns of `fetches`, if it was fetched.
            evidence: The other columns of `documents`.
        """
        documents = self._writer()
        row = {
            "id": document_id(source, url),
            "url": url,
            "source": source,
            "body": body,
            "depth": depth,
            "redirects": list(redirects),
            "body_sha256": hashlib.sha256(body).hexdigest(),
            "truncated": False,
            "robots": "not_applicable",
        }
        documents.write([row | evidence])
        if fetch is not None:
            self._fetches.write([{"id": row["id"]} | fetch])
        self._shard_bytes += len(body)
        self.documents[source] += 1
        self.bytes += len(body)
        self.truncated += bool(evidence.get("truncated"))

    def _writer(self) -> TableWriter:
        """Return the writer of documents; of a new shard if the one before is full."""
        if self._documents is not None:
            if self._shard_bytes <= SHARD_BYTES:
                return self._documents
            self._documents.close()
        self._shard += 1
        self._shard_bytes = 0
        self._documents = self._out.writer("documents", self._shard)
        return self._documents

    def failure(
        self,
        source: str,
        url: str,
        reason: str,
        detail: str,
        *,
        depth: int = 0,
        status: int | None = None,
        fix: str = "",
    ) -> None:
        """Write a row of `failures`.

        Args:
            source: Name of the source.
            url: The address.
            reason: One of the contract's reasons.
            detail: What exactly is wrong. A server or a file may have made it up: half a surrogate
                pair.
            depth: Links from a seed.
            status: The HTTP status, if there was a response. It may be made up, too: 999.
            fix: What repairs it, if that does not follow from the reason.
        """
        detail = detail[:500].encode("utf-8", "replace").decode()
        if status is not None and not 100 <= status <= 599:
            status = None
        row = {
            "url": url,
            "source": source,
            "reason": reason,
            "detail": detail,
            "depth": depth,
            "status": status,
        }
        self._failures.write([row])
        self.failed.setdefault(source, Counter())[reason] += 1
        self.fixes.setdefault((source, reason), Counter())[fix] += 1
        self.examples.setdefault((source, reason, fix), f"{url}: {detail}")
