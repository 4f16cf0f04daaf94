"""Runs benchmarks, each in a process of its own; without a name, all of them.

    python -m tests.bench [clean dedup …]

One JSON line about the machine, then those of the benchmarks. One that fails does not keep the
others from running: it is named at the end, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from tests.bench import machine

FOLDER = Path(__file__).parent
SUFFIX = "_bench"


def benchmarks() -> list[str]:
    """Names of all benchmarks, sorted."""
    return sorted(path.stem.removesuffix(SUFFIX) for path in FOLDER.glob(f"*{SUFFIX}.py"))


def command(name: str) -> list[str]:
    """How one is started."""
    return [sys.executable, "-m", f"tests.bench.{name}{SUFFIX}"]


def environment() -> dict[str, str]:
    """The environment of a benchmark: threads that wait sleep soon, as in flows.cli.commands."""
    if "OMP_WAIT_POLICY" in os.environ:
        return dict(os.environ)
    return {"GOMP_SPINCOUNT": "2000", **os.environ}


def main(arguments: list[str] | None = None) -> int:
    """Run the named benchmarks; gives the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(benchmarks()))
    names = parser.parse_args(arguments).names or benchmarks()
    if unknown := sorted(set(names) - set(benchmarks())):
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(benchmarks())}")
    machine.report({"bench": "machine"} | machine.torch_facts())
    failed: dict[str, int] = {}
    for name in names:
        done = subprocess.run(command(name), cwd=FOLDER.parents[1], env=environment(), check=False)
        if done.returncode:
            failed[name] = done.returncode
    for name, status in failed.items():
        print(f"failed: {name}{SUFFIX}, exit status {status}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
