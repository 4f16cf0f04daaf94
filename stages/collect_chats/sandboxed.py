"""Runs inside the sandbox: a server that forks one confined process per session. Standard library only; started by sandbox.py.

Reads {"seconds", "megabytes", "sessions": [[statement, …], …]} from stdin and writes one line of JSON per session:
{"output": what the last statement printed} or {"error": why not}.
"""

import contextlib
import ctypes
import io
import json
import os
import resource
import select
import signal
import struct
import sys
import time

MAX_OUTPUT = 100_000  # characters that a session may say
REFUSED = (
    "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod", "os.chown", "os.utime",
    "os.setxattr", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "os.kill", "os.killpg", "pty.spawn",
    "subprocess.Popen", "signal.pthread_kill", "resource.prlimit", "resource.setrlimit", "shutil.", "socket.", "ctypes.",
    "webbrowser.open", "mmap.__new__", "fcntl.",
)  # fmt: skip
READ_FILE, READ_DIR = 1 << 2, 1 << 3  # rights of Landlock
SYSTEM = (
    "/usr/lib", "/usr/lib64", "/usr/share/zoneinfo", "/lib", "/lib64", "/nix/store", "/etc/ld.so.cache", "/dev/null", "/dev/urandom",
)  # fmt: skip
WRITING = os.O_WRONLY | os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_TRUNC


def confine(seconds: float, megabytes: int, readable: list) -> str:
    """Limits of the kernel, then Landlock, then Python's own audit events. None can be undone. Says what failed, or ""."""
    limit(resource.RLIMIT_CPU, int(seconds) + 1)
    limit(resource.RLIMIT_FSIZE, 0)
    limit(resource.RLIMIT_CORE, 0)
    limit(resource.RLIMIT_NOFILE, 64)
    limit(resource.RLIMIT_AS, megabytes << 20)
    limit(resource.RLIMIT_NPROC, 0)
    if wrong := landlock(readable):
        return wrong
    sys.addaudithook(refuse)
    return ""


def limit(kind: int, value: int) -> None:
    resource.setrlimit(kind, (value, value))


def libraries(home: str) -> list:
    """What a session may read: where Python and the libraries of the system lie. Never a folder in which the home lies."""
    places = [*sys.path, os.path.join(sys.base_prefix, "lib"), *SYSTEM]
    real = {os.path.realpath(place) for place in places if place}
    return sorted(
        place
        for place in real
        if os.path.exists(place) and os.path.commonpath([place, home]) != place
    )


def landlock(readable: list) -> str:
    """Takes all rights to files but that to read `readable`, and TCP, from this process. Says what failed, or "".

    https://docs.kernel.org/userspace-api/landlock.html; the system call numbers are the same on every architecture.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(444, None, ctypes.c_size_t(0), 1)
    if version < 1:
        return "the kernel has no Landlock, without which a session could read your files"
    files = (1 << {1: 13, 2: 14}.get(version, 15)) - 1
    rules = struct.pack("QQ", files, 0b11) if version >= 4 else struct.pack("Q", files)
    ruleset = libc.syscall(444, rules, ctypes.c_size_t(len(rules)), 0)
    held = ruleset >= 0 and all(add_readable(libc, ruleset, place) for place in readable)
    held = held and libc.prctl(38, 1, 0, 0, 0) == 0 and libc.syscall(446, ruleset, 0) == 0
    return "" if held else f"Landlock refused its rules: {os.strerror(ctypes.get_errno())}"


def add_readable(libc: ctypes.CDLL, ruleset: int, place: str) -> bool:
    """Whether Landlock took the rule that `place` may be read, with all that lies in it."""
    opened = os.open(place, os.O_PATH | os.O_CLOEXEC)
    rights = READ_FILE | READ_DIR if os.path.isdir(place) else READ_FILE
    rule = struct.pack("=Qi", rights, opened)
    taken = libc.syscall(445, ruleset, 1, rule, 0) == 0
    os.close(opened)
    return taken


def refuse(event: str, arguments: tuple) -> None:
    writes = event == "open" and (
        (isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"))
        or (isinstance(arguments[2], int) and arguments[2] & WRITING)
    )
    if writes or event.startswith(REFUSED):
        raise PermissionError(f"{event} is not allowed in the sandbox")


def play(statements: list) -> dict:
    """Run the statements as an interactive session; what the last one printed."""
    names: dict = {"__name__": "__main__"}
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(io.StringIO()):
            for statement in statements:
                said.seek(0)
                said.truncate()
                exec(compile(statement, "<session>", "single", dont_inherit=True), names)
    except (
        BaseException
    ) as error:  # whatever a stranger's code raises is its result, SystemExit too
        return {"error": f"{type(error).__name__}: {error}"[:500]}
    if len(said.getvalue()) > MAX_OUTPUT:
        return {"error": f"printed {len(said.getvalue())} characters"}
    return {"output": said.getvalue()}


def session(statements: list, seconds: float, megabytes: int, readable: list) -> dict:
    """`play` in a process of its own, which is killed when its time is over, with all that it has started."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        devnull = os.open(os.devnull, os.O_RDWR)
        os.dup2(devnull, 0)
        os.dup2(devnull, 1)
        wrong = confine(seconds, megabytes, readable)
        answer = json.dumps({"error": wrong} if wrong else play(statements)).encode()
        with contextlib.suppress(BrokenPipeError):
            while answer:
                answer = answer[os.write(writing, answer) :]
        os._exit(0)
    os.close(writing)
    heard, ends = b"", time.monotonic() + seconds
    while (left := ends - time.monotonic()) > 0 and len(heard) < 16 * MAX_OUTPUT:
        if select.select([reading], [], [], left)[0]:
            piece = os.read(reading, 65536)
            if not piece:
                break
            heard += piece
    timed_out = left <= 0
    os.close(reading)
    end_all_but_this()
    if timed_out:
        return {"error": f"ran longer than {seconds:g} seconds"}
    try:
        return json.loads(heard)
    except ValueError:
        return {"error": "was killed: too much memory or processor time"}


def end_all_but_this() -> None:
    """This process is the first of its namespace: what a session started is all that there is beside it."""
    if os.getpid() != 1:
        sys.exit("this process is not the first of a namespace: sandbox.py starts it in one")
    os.kill(-1, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):  # none is left
        while True:
            os.wait()


def main() -> None:
    task = json.load(sys.stdin)
    readable = libraries(task["home"])
    for statements in task["sessions"]:
        print(
            json.dumps(session(statements, task["seconds"], task["megabytes"], readable)),
            flush=True,
        )


if __name__ == "__main__":
    main()
