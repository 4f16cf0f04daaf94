"""Searches texts for regular expressions inside the process that stages/evaluate/patterns.py starts.

    python patterns_child.py LIMITS

Imports nothing of groundup. Reads one JSON object a line from stdin, {"pattern", "flags", "text",
"new"}, and writes one a line: {"found": what re.findall gives, or re.sub if there is "new"}, or
{"error": why}. Without a text the pattern is only compiled. The kernel holds time and memory: a
pattern that goes beyond ends this process, and nothing else.
"""

import ctypes
import json
import math
import re
import resource
import signal
import sys
from typing import Any

PR_SET_PDEATHSIG = 1
ALWAYS, TIMES = 1 << 20, 16  # characters of a reply that may be, and for each of the text


def main(limits: dict[str, Any]) -> None:
    if sys.platform.startswith("linux"):  # however the parent ends, this process ends too
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        more = address_space() + limits["bytes"]
        resource.setrlimit(resource.RLIMIT_AS, (more, more))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    began = used()
    for number, line in enumerate(sys.stdin.buffer):
        end = math.ceil(began + limits["seconds"] + number * limits["seconds_each"])
        resource.setrlimit(resource.RLIMIT_CPU, (end, resource.RLIM_INFINITY))
        sys.stdout.write(answer(json.loads(line)) + "\n")
        sys.stdout.flush()


def address_space() -> int:
    """Bytes that this process has mapped already."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def used() -> float:
    """Seconds of processor time."""
    told = resource.getrusage(resource.RUSAGE_SELF)
    return told.ru_utime + told.ru_stime


def answer(asked: dict[str, Any]) -> str:
    try:
        reply = json.dumps({"found": search(asked)})
    except MemoryError:
        return json.dumps({"error": "takes more memory than it may have"})
    except (re.error, RecursionError, OverflowError) as error:
        return json.dumps({"error": f"cannot be used: {type(error).__name__}: {error}"[:300]})
    if len(reply) > ALWAYS + TIMES * len(asked["text"] or ""):
        return json.dumps(
            {"error": f"finds {len(reply):,} characters in a text of {len(asked['text']):,}"}
        )
    return reply


def search(asked: dict[str, Any]) -> Any:
    pattern = re.compile(asked["pattern"], asked["flags"])
    if asked["text"] is None:
        return []
    if asked["new"] is not None:
        return pattern.sub(asked["new"], asked["text"])
    return pattern.findall(asked["text"])


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
