"""dedup against a plain datasketch loop on the same documents: CPU seconds of one core.

    python -m tests.bench.dedup_bench [CORPUS.jsonl] [--docs 2000]

Without a corpus (lines of {"text": …}): pydoc's pages of the standard library in pieces of 6,000
characters, and a tenth of them again with one word in a hundred changed. Ours has its default
settings; the loop has the same shingle length, permutations, bands and rows. One JSON line.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import time
from collections.abc import Callable

import pyarrow as pa
import xxhash
from datasketch import MinHash, MinHashLSH

from stages.clean.characters import repaired
from stages.clean.html import extract
from stages.dedup.clusters import find_clusters
from stages.dedup.config import DedupConfig
from stages.dedup.minhash import Signer
from stages.digests import digest
from tests.bench import machine
from tests.bench.pydoc_pages import pydoc_pages

PIECE, SHORTEST = 6000, 400  # characters of a document
WARM_UP = 10  # documents: what is imported with the first of them is not counted


def documents(corpus: str | None, count: int) -> tuple[list[str], int]:
    """Texts, and how many of them, at the end, are planted near-duplicates."""
    if corpus:
        with open(corpus, encoding="utf-8") as file:
            return [json.loads(line)["text"] for line in file][-count:], 0
    texts: list[str] = []
    for page in pydoc_pages(min(count, 1000)):
        text = repaired(extract(page)[0])
        pieces = [text[at : at + PIECE] for at in range(0, len(text), PIECE)]
        texts += [piece for piece in pieces if len(piece) > SHORTEST]
    chance = random.Random(0)
    texts = chance.sample(texts, min(count, len(texts)))
    planted = len(texts) // 10
    for text in texts[:planted]:
        words = text.split(" ")
        for _ in range(max(1, len(words) // 100)):
            words[chance.randrange(len(words))] = "changed"
        texts.append(" ".join(words))
    return texts, planted


def ours(texts: list[str], config: DedupConfig) -> int:
    """Documents that the stage would keep."""
    ids = [digest("bench", str(number)) for number in range(len(texts))]
    signer = Signer(config.ngram, config.permutations, config.seed)
    columns = {"id": pa.array(ids), "text": pa.array(texts, pa.large_string())}
    signed = signer.sign(pa.record_batch(columns))
    bands, rows = config.bands_and_rows()
    clusters = find_clusters(signed, config.threshold, bands, rows, config.verify)
    return len(set(clusters.representative.tolist()))


def peer(texts: list[str], config: DedupConfig) -> int:
    """Documents that the datasketch loop keeps: those that meet no earlier one in the index."""
    word, kept = re.compile(r"\w+"), 0
    index = MinHashLSH(num_perm=config.permutations, params=config.bands_and_rows())
    for number, text in enumerate(texts):
        words = word.findall(text.lower())
        starts = range(max(1, len(words) - config.ngram + 1))
        shingles = {" ".join(words[at : at + config.ngram]).encode() for at in starts}
        sketch = MinHash(num_perm=config.permutations, hashfunc=xxhash.xxh32_intdigest)
        sketch.update_batch(shingles)
        kept += not index.query(sketch)
        index.insert(number, sketch)
    return kept


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", nargs="?")
    parser.add_argument("--docs", type=int, default=2000)
    given = parser.parse_args(arguments)
    texts, planted = documents(given.corpus, given.docs)
    config = DedupConfig()
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    figures: dict[str, object] = {"bench": "dedup", "documents": len(texts)}
    figures |= {"planted": planted, "text_mb": megabytes}
    tools: dict[str, Callable[[list[str], DedupConfig], int]] = {"ours": ours, "peer": peer}
    took: dict[str, float] = {}
    for name, tool in tools.items():
        tool(texts[:WARM_UP], config)
        begin = time.process_time()
        figures[f"{name}_kept"] = tool(texts, config)
        took[name] = time.process_time() - begin
        figures[f"{name}_mb_per_cpu_s"] = megabytes / took[name]
    machine.report(figures | {"ratio_to_peer": took["peer"] / took["ours"]})


if __name__ == "__main__":
    main()
