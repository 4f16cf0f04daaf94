"""Settings for a quick evaluation, and its scores by task and metric."""

from __future__ import annotations

from typing import Any

from data_contracts import Artifact

QUICK: dict[str, Any] = {"prompts": ["What is a string?"], "new_tokens": 4, "device": "cpu"}


def scores(artifact: Artifact) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["task"], row["metric"]): row for row in artifact.read("scores").to_pylist()}
