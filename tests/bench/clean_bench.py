"""clean against its parts and a peer, on the same pages: CPU seconds of one core, one JSON line.

    python -m tests.bench.clean_bench [FOLDER OF *.html] [--pages 200]

Without a folder: pydoc's pages of the standard library. `clean` is what a worker of the stage does
with its default settings, the process that guards it included; `extraction` is the part that makes
text of HTML, `bare` resiliparse alone. The peer is trafilatura as datatrove calls it.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import trafilatura
from resiliparse.extract.html2text import extract_plain_text

from stages.clean.config import CleanConfig
from stages.clean.guard import shared_process, stop_shared_process
from stages.clean.html import extract_text
from stages.clean.page import CleanedPage, RawPage
from tests.bench import machine
from tests.bench.pydoc_pages import pydoc_pages


def pages_of(folder: str | None, count: int) -> list[bytes]:
    """Bodies of HTML pages."""
    if folder:
        paths = sorted(Path(folder).rglob("*.html"))
        random.Random(0).shuffle(paths)
        return [path.read_bytes() for path in paths[:count]]
    return [page.encode() for page in pydoc_pages(count)]


def cpu_seconds() -> float:
    """Of this process and of those that it started and that still run."""
    total = time.process_time()
    for child in psutil.Process().children(recursive=True):
        spent = child.cpu_times()
        total += spent.user + spent.system
    return total


def measured(work: Callable[[bytes], object], pages: list[bytes]) -> tuple[float, list[object]]:
    """CPU seconds over all pages, and what came of each."""
    work(pages[0])
    begin = cpu_seconds()
    made = [work(page) for page in pages]
    return cpu_seconds() - begin, made


def bare(page: bytes) -> str:
    """resiliparse alone."""
    text = page.decode("utf-8", "replace")
    return extract_plain_text(text, main_content=True, alt_texts=False)


def peer(page: bytes) -> str | None:
    """trafilatura with datatrove's arguments."""
    text = page.decode("utf-8", "replace")
    return trafilatura.extract(text, favor_precision=True, include_comments=False, deduplicate=True)


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--pages", type=int, default=200)
    given = parser.parse_args(arguments)
    pages = pages_of(given.folder, given.pages)
    config = CleanConfig()
    guard = shared_process(config, str(config.model_path()))

    def clean(page: bytes) -> CleanedPage:
        return guard.clean(RawPage(page, "text/html", None))

    tools = {"clean": clean, "extraction": extract_text, "bare": bare, "peer": peer}
    took: dict[str, float] = {}
    made: dict[str, list[object]] = {}
    try:
        for name, work in tools.items():
            took[name], made[name] = measured(work, pages)
    finally:
        stop_shared_process()
    megabytes = sum(map(len, pages)) / 1e6
    reasons = [page.reason for page in made["clean"] if isinstance(page, CleanedPage)]
    figures: dict[str, object] = {"bench": "clean", "pages": len(pages), "html_mb": megabytes}
    figures |= {"kept": reasons.count(""), "crashed": reasons.count("crashed")}
    figures |= {f"{name}_pages_per_cpu_s": len(pages) / seconds for name, seconds in took.items()}
    figures |= {
        "clean_mb_per_cpu_s": megabytes / took["clean"],
        "ratio_to_peer": took["peer"] / took["clean"],
        "ratio_to_bare": took["bare"] / took["clean"],
    }
    machine.report(figures)


if __name__ == "__main__":
    main()
