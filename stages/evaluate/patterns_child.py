"""Searches texts for regular expressions, in the process that stages/evaluate/patterns.py starts.

    python patterns_child.py LIMITS

Imports nothing of groundup. Reads one JSON object a line from stdin: {"pattern", "flags", "text",
"new"}. Writes one a line: {"found": the result of re.findall, or of re.sub if there is "new"}, or
{"error": why}. Without a text, the pattern is only compiled. The kernel limits time and memory: a
pattern that exceeds them ends this process and nothing else.
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
# characters of a reply: these, and so many more for each character of the text
MAX_REPLY, MAX_REPLY_PER_CHARACTER = 1 << 20, 16


def main(limits: dict[str, Any]) -> None:
    if sys.platform.startswith("linux"):  # this process ends with its parent, however that ends
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        max_bytes = address_space() + limits["bytes"]
        resource.setrlimit(resource.RLIMIT_AS, (max_bytes, max_bytes))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    began = used()
    for number, line in enumerate(sys.stdin.buffer):
        end = math.ceil(began + limits["seconds"] + number * limits["seconds_each"])
        resource.setrlimit(resource.RLIMIT_CPU, (end, resource.RLIM_INFINITY))
        sys.stdout.write(answer(json.loads(line)) + "\n")
        sys.stdout.flush()


def address_space() -> int:
    """Return the bytes that this process has mapped already."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def used() -> float:
    """Return the seconds of processor time."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def answer(request: dict[str, Any]) -> str:
    """Return the reply to a request, as JSON."""
    try:
        reply = json.dumps({"found": search(request)})
    except MemoryError:
        return json.dumps({"error": "takes more memory than it may have"})
    except (re.error, RecursionError, OverflowError) as error:
        return json.dumps({"error": f"cannot be used: {type(error).__name__}: {error}"[:300]})
    length = len(request["text"] or "")
    if len(reply) > MAX_REPLY + MAX_REPLY_PER_CHARACTER * length:
        return json.dumps({"error": f"finds {len(reply):,} characters in a text of {length:,}"})
    return reply


def search(request: dict[str, Any]) -> Any:
    pattern = re.compile(request["pattern"], request["flags"])
    if request["text"] is None:
        return []
    if request["new"] is not None:
        return pattern.sub(request["new"], request["text"])
    return pattern.findall(request["text"])


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
