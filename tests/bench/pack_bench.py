"""How fast pack encodes on one core, beside bare `tokenizers` on the same documents. Prints one JSON line.

    python tests/bench/pack_bench.py [TEXT_FILE_OR_FOLDER]

Default text: the sources of the running Python's standard library. The two alternate; figures are medians of CPU seconds.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

import pyarrow as pa
from tokenizers import Tokenizer

from stages.pack import rows
from stages.train_tokenizer import bpe, special

ROUNDS = 5
BYTES = 8_000_000
RESERVED = 12


def main(place: Path) -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    texts = _texts(place)
    size = sum(len(text.encode()) for text in texts)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tokenizer.json"
        file.write_text(bpe.train(texts, 8192, special.special_tokens(RESERVED), 2, 32).to_str(), "utf-8")
        file.with_name("tokenizer_config.json").write_text(special.tokenizer_config(1024, RESERVED), "utf-8")
        recipe = rows.Recipe(file, seed=0, max_row_tokens=32_768)
        batches = _batches(texts)
        bare = Tokenizer.from_file(str(file))
        ours, theirs = [], []
        for _ in range(ROUNDS):
            start = time.process_time()
            tokens = sum(rows.encode(recipe, batch).counts["bench"].tokens for batch in batches)
            ours.append(time.process_time() - start)
            start = time.process_time()
            for batch in batches:
                bare.encode_batch(batch.column("text").to_pylist())
            theirs.append(time.process_time() - start)
    mine, bare_speed = (size / statistics.median(seconds) / 1e6 for seconds in (ours, theirs))
    result = {"bench": "pack", "bytes": size, "tokens": tokens, "pack_MB_per_s_core": round(mine, 2),
              "tokenizers_MB_per_s_core": round(bare_speed, 2), "ratio": round(mine / bare_speed, 2)}  # fmt: skip
    print(json.dumps(result))


def _texts(place: Path) -> list[str]:
    files = sorted(place.rglob("*.py")) if place.is_dir() else [place]
    texts, size = [], 0
    for file in files:
        text = file.read_text("utf-8", errors="replace")
        if text and size < BYTES:
            texts.append(text)
            size += len(text)
    return texts


def _batches(texts: list[str]) -> list[pa.RecordBatch]:
    """As `rows.tasks` makes them: about rows.TASK_BYTES each."""
    batches, waiting = [], []
    for number, text in enumerate(texts):
        waiting.append({"id": f"{number:032x}", "source": "bench", "text": text})
        if sum(len(row["text"]) for row in waiting) >= rows.TASK_BYTES or number == len(texts) - 1:
            batches.append(pa.RecordBatch.from_pylist(waiting))
            waiting = []
    return batches


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(sysconfig.get_paths()["stdlib"]))
