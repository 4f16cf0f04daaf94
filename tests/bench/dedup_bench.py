"""dedup against a plain datasketch loop on the same documents in the same process: CPU seconds, one core, one JSON line.

    python -m tests.bench.dedup_bench [CORPUS.jsonl] [--docs 2000]

Without a corpus (lines of {"text": …}): pydoc's pages of the standard library in pieces of 6,000 characters, and a tenth of them
again with one word in a hundred changed. Both sides use the same shingle length, permutations, bands and rows.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import time

import pyarrow as pa
import xxhash
from datasketch import MinHash, MinHashLSH

from stages.clean.characters import repaired
from stages.clean.html import extract
from stages.dedup.clusters import find_clusters
from stages.dedup.config import DedupConfig
from stages.dedup.minhash import Signer
from stages.digests import digest
from tests.bench.pydoc_pages import pydoc_pages


def documents(corpus: str | None, count: int) -> tuple[list[str], int]:
    """Texts, and how many of them, at the end, are planted near-duplicates."""
    if corpus:
        with open(corpus, encoding="utf-8") as file:
            return [json.loads(line)["text"] for line in file][-count:], 0
    texts: list[str] = []
    for text in (repaired(extract(page)[0]) for page in pydoc_pages(1000)):
        texts += [piece for at in range(0, len(text), 6000) if len(piece := text[at : at + 6000]) > 400]
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
    ids = [digest("bench", str(number)) for number in range(len(texts))]
    signer = Signer(config.ngram, config.permutations, config.seed)
    signed = signer.sign(pa.record_batch({"id": pa.array(ids), "text": pa.array(texts, pa.large_string())}))
    clusters = find_clusters(signed, config.threshold, *config.bands_and_rows())
    return len(set(clusters.representative.tolist()))


def peer(texts: list[str], config: DedupConfig) -> int:
    word, kept = re.compile(r"\w+"), 0
    index = MinHashLSH(num_perm=config.permutations, params=config.bands_and_rows())
    for number, text in enumerate(texts):
        words = word.findall(text.lower())
        shingles = {" ".join(words[at : at + config.ngram]).encode() for at in range(max(1, len(words) - config.ngram + 1))}
        sketch = MinHash(num_perm=config.permutations, hashfunc=xxhash.xxh32_intdigest)
        sketch.update_batch(shingles)
        kept += not index.query(sketch)
        index.insert(number, sketch)
    return kept


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("corpus", nargs="?")
    parser.add_argument("--docs", type=int, default=2000)
    given = parser.parse_args()
    texts, planted = documents(given.corpus, given.docs)
    config = DedupConfig()
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    figures: dict[str, object] = {"bench": "dedup", "documents": len(texts), "planted": planted, "text_mb": round(megabytes, 1)}
    took = {}
    for name, tool in (("ours", ours), ("peer", peer)):
        begin = time.process_time()
        figures[f"{name}_kept"] = tool(texts, config)
        took[name] = time.process_time() - begin
        figures[f"{name}_mb_per_cpu_s"] = round(megabytes / took[name], 2)
    print(json.dumps(figures | {"ratio_to_peer": round(took["peer"] / took["ours"], 2)}))


if __name__ == "__main__":
    main()
