"""How fast pack encodes on one core, beside bare `tokenizers` on the same documents. One JSON line.

    python -m tests.bench.pack_bench [TEXT FILE OR FOLDER] [--megabytes 8] [--rounds 5]

Default text: the sources of the running Python's standard library. The vocabulary is learned from
it with the default settings of train_tokenizer. The two take turns and begin each round with empty
caches; figures are medians of CPU seconds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sysconfig
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

import pyarrow as pa
from tokenizers import Tokenizer

from stages.pack import rows
from stages.pack.config import PackConfig
from stages.pack.encode import encoder
from stages.train_tokenizer import bpe, special
from stages.train_tokenizer.config import TrainTokenizerConfig
from tests.bench import machine


def trained(folder: Path, texts: list[str]) -> Path:
    """The tokenizer.json of a tokenizer learned from `texts`, as the stage writes it."""
    config = TrainTokenizerConfig()
    names = special.special_tokens(config.reserved_tokens)
    tokenizer = bpe.train(
        texts,
        config.vocabulary_size,
        names,
        config.min_frequency,
        config.max_token_bytes,
    )
    file = folder / "tokenizer.json"
    file.write_text(tokenizer.to_str(), "utf-8")
    settings = special.tokenizer_config(config.model_max_length, config.reserved_tokens)
    file.with_name("tokenizer_config.json").write_text(settings, "utf-8")
    return file


def ours(file: Path, batches: list[pa.RecordBatch]) -> tuple[float, int]:
    """CPU seconds of pack, and the tokens that it makes."""
    config = PackConfig()
    recipe = rows.RowSettings(config.seed, config.max_row_tokens, config.epochs)
    encoder.cache_clear()
    coder = encoder(file)
    start = time.process_time()
    tokens = 0
    for batch in batches:
        tokens += rows.encode(coder, recipe, batch).counts["bench"].tokens
    return time.process_time() - start, tokens


def peer(file: Path, batches: list[pa.RecordBatch]) -> float:
    """CPU seconds of bare tokenizers."""
    bare = Tokenizer.from_file(str(file))
    start = time.process_time()
    for batch in batches:
        bare.encode_batch(batch.column("text").to_pylist())
    return time.process_time() - start


def texts_of(source: Path, most: int) -> list[str]:
    """Texts of a file or of a folder's *.py, about `most` characters."""
    files = sorted(source.rglob("*.py")) if source.is_dir() else [source]
    texts: list[str] = []
    size = 0
    for file in files:
        text = file.read_text("utf-8", errors="replace")
        if text and size < most:
            texts.append(text)
            size += len(text)
    return texts


def batches_of(texts: list[str]) -> list[pa.RecordBatch]:
    """As `rows.tasks` makes them: about rows.TASK_BYTES each."""
    batches: list[pa.RecordBatch] = []
    waiting: list[dict[str, str]] = []
    for number, text in enumerate(texts):
        waiting.append({"id": f"{number:032x}", "source": "bench", "text": text})
        size = sum(len(row["text"]) for row in waiting)
        if size >= rows.TASK_BYTES or number == len(texts) - 1:
            batches.append(pa.RecordBatch.from_pylist(waiting))
            waiting = []
    return batches


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    library = Path(sysconfig.get_paths()["stdlib"])
    parser.add_argument("source", nargs="?", type=Path, default=library)
    parser.add_argument("--megabytes", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args(arguments)
    texts = texts_of(given.source, int(given.megabytes * 1e6))
    batches = batches_of(texts)
    size = sum(len(text.encode()) for text in texts)
    mine: list[float] = []
    theirs: list[float] = []
    one_thread = patch.dict(os.environ, TOKENIZERS_PARALLELISM="false")  # read at every call
    with tempfile.TemporaryDirectory() as folder, one_thread:
        file = trained(Path(folder), texts)
        for _ in range(given.rounds):
            seconds, tokens = ours(file, batches)
            mine.append(seconds)
            theirs.append(peer(file, batches))
    pack, bare = statistics.median(mine), statistics.median(theirs)
    machine.report(
        {
            "bench": "pack",
            "bytes": size,
            "tokens": tokens,
            "pack_MB_per_s_core": size / pack / 1e6,
            "tokenizers_MB_per_s_core": size / bare / 1e6,
            "ratio": bare / pack,
        }
    )


if __name__ == "__main__":
    main()
