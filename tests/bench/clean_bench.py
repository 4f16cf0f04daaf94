"""clean against its parts and a peer, on the same pages in the same process: CPU seconds, one core, one JSON line.

    python -m tests.bench.clean_bench [FOLDER OF *.html] [--pages 200]

Without a folder: pydoc's pages of the standard library. The peer is trafilatura as datatrove calls it; `bare` is resiliparse alone.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable
from pathlib import Path

import trafilatura
from resiliparse.extract.html2text import extract_plain_text

from stages.clean.config import CleanConfig
from stages.clean.document import Page, cleaned
from stages.clean.html import extract_text
from tests.bench.pydoc_pages import pydoc_pages


def pages_of(folder: str | None, count: int) -> list[bytes]:
    if folder:
        paths = sorted(Path(folder).rglob("*.html"))
        random.Random(0).shuffle(paths)
        return [path.read_bytes() for path in paths[:count]]
    return [page.encode() for page in pydoc_pages(count)]


def seconds(work: Callable[[bytes], object], pages: list[bytes]) -> float:
    work(pages[0])
    begin = time.process_time()
    for page in pages:
        work(page)
    return time.process_time() - begin


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--pages", type=int, default=200)
    given = parser.parse_args()
    pages = pages_of(given.folder, given.pages)
    config = CleanConfig(rules=())
    model = str(config.model_path())
    tools: dict[str, Callable[[bytes], object]] = {
        "clean": lambda page: cleaned(Page(page, "text/html", None), config, model),
        "extraction": extract_text,
        "bare": lambda page: extract_plain_text(page.decode("utf-8", "replace"), main_content=True, alt_texts=False),
        "peer": lambda page: trafilatura.extract(
            page.decode("utf-8", "replace"), favor_precision=True, include_comments=False, deduplicate=True
        ),
    }
    took = {name: seconds(work, pages) for name, work in tools.items()}
    megabytes = sum(map(len, pages)) / 1e6
    figures = {"bench": "clean", "pages": len(pages), "html_mb": round(megabytes, 1)}
    figures |= {f"{name}_pages_per_cpu_s": round(len(pages) / s, 1) for name, s in took.items()}
    figures |= {"clean_mb_per_cpu_s": round(megabytes / took["clean"], 2)}
    figures |= {"ratio_to_peer": round(took["peer"] / took["clean"], 2), "ratio_to_bare": round(took["bare"] / took["clean"], 2)}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
