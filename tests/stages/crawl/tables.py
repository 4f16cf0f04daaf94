"""What the tables of an artifact of crawl hold, by the path of the address."""

from __future__ import annotations


def paths(artifact, site):
    return sorted(
        row["url"].removeprefix(site.origin)
        for row in artifact.read("documents", ["url"]).to_pylist()
    )


def failures(artifact, site):
    rows = artifact.read("failures").to_pylist()
    return {row["url"].removeprefix(site.origin): row["reason"] for row in rows}


def rows_of(artifact):
    """Rows of documents by address, each with its fetch."""
    fetches = {row["id"]: row for row in artifact.read("fetches").to_pylist()}
    return {row["url"]: row | fetches[row["id"]] for row in artifact.read("documents").to_pylist()}


def row_of(artifact, site, path):
    return rows_of(artifact)[site.origin + path]


def documents(artifact, folder):
    rows = artifact.read("documents").to_pylist()
    return {row["url"].removeprefix(f"{folder.as_uri()}/"): row for row in rows}
