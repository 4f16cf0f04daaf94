"""A small run with everything that the stage takes.

Eight pages were fetched, one was trained on; there are three checkpoints, scores and GGUF files.
"""

from __future__ import annotations

import hashlib
from typing import Any

from stages.digests import digest
from tests.checkpoints import tiny_checkpoint
from tests.golden import dpo, pretrain, sft
from tests.golden.evaluate import ITEMS, PAGES

SIGNALS = {"words": 4, "removed_lines": 0, "redactions": 0}


def _page(number: int, **more: Any) -> dict[str, Any]:
    url, source = f"http://localhost/{'abcdefgh'[number]}", "web" if number < 5 else "files"
    return {
        "id": digest(source, url),
        "url": url,
        "source": source,
        "license": "CC0" if number == 1 else None,
    } | more


def _raw(number: int) -> dict[str, Any]:
    body = b"x" * (100 + number)
    fetched = {
        "body": body,
        "body_sha256": hashlib.sha256(body).hexdigest(),
        "media_type": "text/plain",
        "truncated": False,
    }
    robots = "allowed" if number < 5 else "not_applicable"
    return (
        _page(
            number,
            depth=0,
            redirects=[],
            robots=robots,
            meta_robots="noarchive" if number == 2 else None,
        )
        | fetched
    )


def _text(number: int, **more: Any) -> dict[str, Any]:
    return _page(number, text="Some words | on a page.", language="en" if number else "de") | more


def _unique(number: int, **more: Any) -> dict[str, Any]:
    return _text(number, cluster=_page(number)["id"], cluster_size=2) | more


def _refused(source: str, **more: Any) -> dict[str, Any]:
    return {
        source: "http://localhost/a",
        "content": "",
        "reason": "empty",
        "detail": "0 characters",
    } | more


SCORES = [
    {
        "task": "heldout_description",
        "metric": "acc",
        "value": 0.40625,
        "stderr": 0.0217,
        "n": 512,
        "baseline": 0.25,
        "baseline_name": "chance",
        "higher_is_better": True,
    },
    {"task": "arc_easy", "metric": "acc", "n": 0, "higher_is_better": True},
]
FILES = [
    {
        "quantization": "Q8_0",
        "file": "m-Q8_0.gguf",
        "bytes": 123456,
        "kl_divergence": 0.00037,
        "top1_agreement": 0.984,
        "same_greedy_text": True,
        "positions": 64,
        "token_mismatches": 0,
        "strings": 634,
    }
]

SETTINGS: dict[str, Any] = {"name": "Golden"}

BAD: list[tuple[dict[str, Any], str]] = [
    ({"licence": "mit"}, r"describe\.licence is not a setting; did you mean 'license'")
]


def inputs(publish: Any) -> dict[str, Any]:
    return {
        "raw_documents": publish(
            "raw_documents",
            documents=[_raw(number) for number in range(8)],
            failures=[
                {
                    "url": "http://localhost/x",
                    "source": "web",
                    "reason": "timeout",
                    "detail": "30 s",
                    "depth": 1,
                }
            ],
            files={},
        ),
        "clean_documents": publish(
            "clean_documents",
            documents=[_text(number, **SIGNALS | {"redactions": number}) for number in range(6)],
            rejects=[
                _text(number, **SIGNALS, reason="too_short", detail="4 words") for number in (6, 7)
            ],
        ),
        "unique_documents": publish(
            "unique_documents",
            train=[_unique(number) for number in range(2)],
            heldout=[_unique(2)],
            rejects=[_unique(number, reason="near", similarity=0.9) for number in (3, 4, 5)],
        ),
        "training_documents": publish(
            "training_documents",
            documents=[_text(1)],
            rejects=[_text(0, reason="contaminated", item="0" * 32, ngram="a b c", hits=1)],
        ),
        "eval_items": publish("eval_items", items=ITEMS[:5], pages=PAGES[:2]),
        **pretrain.inputs(publish),
        "base_checkpoint": tiny_checkpoint(publish),
        "conversations": publish(
            "conversations", conversations=sft.colours(7, 3), rejects=[_refused("url", kind="user")]
        ),
        "sft_checkpoint": tiny_checkpoint(publish, "qwen3"),
        "preferences": publish(
            "preferences", pairs=dpo.pairs(5, 1), rejects=[_refused("conversation")] * 3
        ),
        "dpo_checkpoint": tiny_checkpoint(publish, max_position_embeddings=256),
        "scores": publish("scores", scores=SCORES, files={"results.json": b"{}"}),
        "gguf_model": publish("gguf_model", quantizations=FILES, files={"m-Q8_0.gguf": _header()}),
    }


def _header() -> bytes:
    import tempfile
    from pathlib import Path

    import gguf
    import numpy as np

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "m.gguf")
        writer = gguf.GGUFWriter(path, "llama")
        writer.add_tensor("a", np.zeros(32, np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path.read_bytes()
