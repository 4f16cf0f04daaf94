"""Renders chat templates, in the process that stages/chat_templates.py starts.

    python chat_template_child.py LIMITS

Imports nothing of groundup. Reads one JSON object a line from stdin: {"template", "chats",
"variables", "marks", "prompt"}. Writes one a line: {"rendered": [[text, spans], …]}, or {"error":
why, "chat": number of the chat}. The kernel limits time and memory: a template that exceeds them
ends this process and nothing else.
"""

import ctypes
import gc
import json
import math
import re
import resource
import signal
import sys
from types import FrameType
from typing import Any

SHOWN = 300  # characters of an error that a template raises
# what a template may not do: how the name of Python's audit event begins → the words for it
REFUSED = {
    "open": "opens a file",
    "os.": "uses the operating system",
    "subprocess.": "starts a program",
    "socket.": "opens a connection",
    "ctypes.": "uses a C library",
    "shutil.": "works on files",
    "pty.": "starts a program",
    "webbrowser.": "starts a browser",
}
TEMPLATE_FILE = "<template>"  # the name of a template's source in a traceback
WARM_UP = "{% for m in messages %}{{ m | tojson }}{{ strftime_now('%Y') }}{% endfor %}"
READY = "ready"
HALVES = re.compile("[\ud800-\udfff]")
PR_SET_PDEATHSIG = 1


def main(limits: dict[str, Any]) -> None:
    if sys.platform.startswith("linux"):  # this process ends with its parent, however that ends
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    from transformers.utils.chat_template_utils import render_jinja_template

    # what a render and an error import must be imported before files are closed to this process
    request = {"template": WARM_UP, "variables": {}, "marks": False, "prompt": True}
    chat = [{"role": "user", "content": ""}]
    render(render_jinja_template, request, chat, limits)
    answer(render_jinja_template, request | {"template": "{{ 1 / 0 }}", "chats": [chat]}, limits)
    confine(limits)
    print(READY, flush=True)
    for line in sys.stdin.buffer:
        reply = json.dumps(answer(render_jinja_template, json.loads(line), limits))
        sys.stdout.write(reply + "\n")
        sys.stdout.flush()


def confine(limits: dict[str, Any]) -> None:
    """From here on, open no file, start no process, make no connection, and bound memory."""
    if sys.platform != "darwin":  # macOS accepts no limit of the address space
        limit(resource.RLIMIT_AS, address_space() + limits["bytes"])
    limit(resource.RLIMIT_FSIZE, 0)
    limit(resource.RLIMIT_CORE, 0)
    limit(resource.RLIMIT_NOFILE, 0)
    sys.addaudithook(refuse)


def limit(kind: int, value: int) -> None:
    resource.setrlimit(kind, (value, value))


def address_space() -> int:
    """Return the bytes that this process has mapped already."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def refuse(event: str, arguments: tuple) -> None:
    """Stop what reaches beyond the process. This is the audit hook."""
    for prefix, action in REFUSED.items():
        if event.startswith(prefix):
            raise PermissionError(f"{culprit()} {action}, which a chat template may not do")


def culprit() -> str:
    """Return the filter that the template is applying, or the template as a whole.

    Some filters and functions of Jinja load a library when they are used, which opens a file.
    The message must name what the author of the template wrote, not what Python did for it.
    """
    frame: FrameType | None = sys._getframe(1)
    called = ""
    while frame is not None and frame.f_code.co_filename != TEMPLATE_FILE:
        called = frame.f_code.co_name
        frame = frame.f_back
    if frame is not None and called.startswith("do_"):  # Jinja's name of a filter's function
        return f"its filter {called.removeprefix('do_')!r}"
    return "a function in it"


def answer(renderer: Any, request: dict[str, Any], limits: dict[str, Any]) -> dict[str, Any]:
    """Return the reply to a request."""
    rendered = []
    for number, chat in enumerate(request["chats"]):
        allow(limits["seconds"])
        try:
            rendered.append(render(renderer, request, chat, limits))
        except MemoryError:
            gc.collect()
            return {"error": "takes more memory than it may have", "chat": number}
        except RecursionError:
            return {"error": "is nested too deeply, or calls itself without end", "chat": number}
        except Exception as error:  # a template may raise anything
            return {"error": f"cannot be used: {printable(error)}", "chat": number}
    return {"rendered": rendered}


def printable(error: Exception) -> str:
    """Return the beginning of an error, without characters that a terminal would obey."""
    text = f"{type(error).__name__}: {error}"[:SHOWN]
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def allow(seconds: int) -> None:
    """Allow this much processor time from now. The kernel then ends this process.

    Processor time does not depend on how busy the machine is.
    """
    used = resource.getrusage(resource.RUSAGE_SELF)
    end = math.ceil(used.ru_utime + used.ru_stime) + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (end, resource.RLIM_INFINITY))


def render(
    renderer: Any, request: dict[str, Any], chat: list, limits: dict[str, Any]
) -> tuple[str, list]:
    """Render one conversation.

    Returns:
        The text, and if the request has `marks` the (start, end) of each part that the assistant
        says.
    """
    texts, spans = renderer(
        [chat],
        chat_template=request["template"],
        return_assistant_tokens_mask=request["marks"],
        add_generation_prompt=request["prompt"],
        **request["variables"],
    )
    text = texts[0]
    given = 0
    for message in chat:
        given += sum(len(str(value)) for value in message.values())
    max_length = limits["characters"] + 4 * given
    if len(text) > max_length:
        raise ValueError(
            f"makes {len(text):,} characters of {given:,}, and may make {max_length:,}"
        )
    if not text:
        raise ValueError("it writes nothing")
    half = HALVES.search(text)
    if half:  # no tokenizer reads it
        raise ValueError(f"it writes half of a character, U+{ord(half[0]):04X}")
    return text, spans[0] if request["marks"] else []


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
