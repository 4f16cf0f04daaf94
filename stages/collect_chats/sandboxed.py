"""Runs inside the sandbox: a server that forks one confined process per session.

sandbox.py starts it. It uses only the standard library. It reads one task from stdin:
{"seconds", "megabytes", "home", "sessions": [[statement, …], …]}. It writes one line of JSON per
session: {"output": what the last statement printed} or {"error": why there is none}.
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

MAX_OUTPUT = 100_000  # characters that a session may print
MAX_ANSWER_BYTES = 16 * MAX_OUTPUT  # the same as JSON
REFUSED_EVENTS = (
    "os.remove",
    "os.rename",
    "os.mkdir",
    "os.rmdir",
    "os.link",
    "os.symlink",
    "os.truncate",
    "os.chmod",
    "os.chown",
    "os.utime",
    "os.setxattr",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "os.fork",
    "os.forkpty",
    "os.kill",
    "os.killpg",
    "pty.spawn",
    "subprocess.Popen",
    "signal.pthread_kill",
    "resource.prlimit",
    "resource.setrlimit",
    "shutil.",
    "socket.",
    "ctypes.",
    "webbrowser.open",
    "mmap.__new__",
    "fcntl.",
)
SYSTEM_LIBRARIES = (
    "/usr/lib",
    "/usr/lib64",
    "/usr/share/zoneinfo",
    "/lib",
    "/lib64",
    "/nix/store",
    "/etc/ld.so.cache",
    "/dev/null",
    "/dev/urandom",
)
WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_TRUNC

# Landlock: https://docs.kernel.org/userspace-api/landlock.html. The numbers of the system calls
# are the same on every architecture. Each version of the interface has more rights to take away.
LANDLOCK_CREATE_RULESET = 444
LANDLOCK_ADD_RULE = 445
LANDLOCK_RESTRICT_SELF = 446
CREATE_RULESET_VERSION = 1  # a flag: ask for the version instead of creating a ruleset
RULE_PATH_BENEATH = 1
READ_FILE = 1 << 2
READ_DIR = 1 << 3
FILE_RIGHTS_BY_VERSION = {1: 13, 2: 14}  # how many rights to files there are
FILE_RIGHTS = 15  # from version 3 on
TCP_RIGHTS = 0b11  # to bind and to connect, from version 4 on
FIRST_VERSION_WITH_TCP = 4
PR_SET_NO_NEW_PRIVS = 38  # of prctl; Landlock requires it


def confine(seconds: float, megabytes: int, readable: list[str]) -> str:
    """Take rights from this process that it can never get back.

    First come limits of the kernel, then Landlock, then the audit events of Python.

    Args:
        seconds: Processor time, rounded up.
        megabytes: Memory.
        readable: Files and folders that the process may read.

    Returns:
        What failed; empty if nothing did.
    """
    limit(resource.RLIMIT_CPU, int(seconds) + 1)
    limit(resource.RLIMIT_FSIZE, 0)
    limit(resource.RLIMIT_CORE, 0)
    limit(resource.RLIMIT_NOFILE, 64)
    limit(resource.RLIMIT_AS, megabytes << 20)
    limit(resource.RLIMIT_NPROC, 0)
    problem = restrict_files(readable)
    if problem:
        return problem
    sys.addaudithook(refuse)
    return ""


def limit(kind: int, value: int) -> None:
    resource.setrlimit(kind, (value, value))


def libraries(home: str) -> list[str]:
    """Return what a session may read: the libraries of Python and of the system.

    A folder that contains the home folder is never among them.
    """
    paths = [*sys.path, os.path.join(sys.base_prefix, "lib"), *SYSTEM_LIBRARIES]
    real_paths = {os.path.realpath(path) for path in paths if path}
    return [
        path
        for path in sorted(real_paths)
        if os.path.exists(path) and os.path.commonpath([path, home]) != path
    ]


def restrict_files(readable: list[str]) -> str:
    """Take from this process TCP and all rights to files, except to read those in `readable`.

    Returns:
        What failed; empty if nothing did.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    no_size = ctypes.c_size_t(0)
    version = libc.syscall(LANDLOCK_CREATE_RULESET, None, no_size, CREATE_RULESET_VERSION)
    if version < 1:
        return "the kernel has no Landlock, without which a session could read your files"
    file_rights = (1 << FILE_RIGHTS_BY_VERSION.get(version, FILE_RIGHTS)) - 1
    rights = struct.pack("Q", file_rights)
    if version >= FIRST_VERSION_WITH_TCP:
        rights += struct.pack("Q", TCP_RIGHTS)
    ruleset = libc.syscall(LANDLOCK_CREATE_RULESET, rights, ctypes.c_size_t(len(rights)), 0)
    if not enforce(libc, ruleset, readable):
        return f"Landlock refused its rules: {os.strerror(ctypes.get_errno())}"
    return ""


def enforce(libc: ctypes.CDLL, ruleset: int, readable: list[str]) -> bool:
    """Return whether Landlock accepted the ruleset with all its rules, and enforces it now."""
    if ruleset < 0:
        return False
    for path in readable:
        if not add_readable(libc, ruleset, path):
            return False
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return False
    return libc.syscall(LANDLOCK_RESTRICT_SELF, ruleset, 0) == 0


def add_readable(libc: ctypes.CDLL, ruleset: int, path: str) -> bool:
    """Return whether Landlock accepted the rule that `path` and all in it may be read."""
    opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    rights = READ_FILE | READ_DIR if os.path.isdir(path) else READ_FILE
    rule = struct.pack("=Qi", rights, opened)
    result = libc.syscall(LANDLOCK_ADD_RULE, ruleset, RULE_PATH_BENEATH, rule, 0)
    os.close(opened)
    return result == 0


def refuse(event: str, arguments: tuple[object, ...]) -> None:
    """Stop whatever writes, starts a process or opens a socket. This is the audit hook."""
    is_writing = event == "open" and may_write(mode=arguments[1], flags=arguments[2])
    if is_writing or event.startswith(REFUSED_EVENTS):
        raise PermissionError(f"{event} is not allowed in the sandbox")


def may_write(mode: object, flags: object) -> bool:
    """Return whether a file opened with this mode (a text) or these flags can be written to."""
    if isinstance(mode, str) and set(mode) & set("wax+"):
        return True
    return isinstance(flags, int) and bool(flags & WRITE_FLAGS)


def play(statements: list[str]) -> dict[str, str]:
    """Run the statements as an interactive session and return what the last one prints."""
    names: dict[str, object] = {"__name__": "__main__"}
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
            for statement in statements:
                printed.seek(0)
                printed.truncate()
                exec(compile(statement, "<session>", "single", dont_inherit=True), names)
    # Whatever foreign code raises is its result. That includes SystemExit.
    except BaseException as error:
        return {"error": f"{type(error).__name__}: {error}"[:500]}
    if len(printed.getvalue()) > MAX_OUTPUT:
        return {"error": f"printed {len(printed.getvalue())} characters"}
    return {"output": printed.getvalue()}


def run_session(
    statements: list[str], seconds: float, megabytes: int, readable: list[str]
) -> dict[str, str]:
    """Run `play` in a forked process.

    When the time is over, the process is killed, with all that it has started.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        answer_confined(writing, statements, seconds, megabytes, readable)
    os.close(writing)
    answer, timed_out = read_answer(reading, seconds)
    os.close(reading)
    kill_all_others()
    if timed_out:
        return {"error": f"ran longer than {seconds:g} seconds"}
    try:
        return json.loads(answer)
    except ValueError:
        return {"error": "was killed: too much memory or processor time"}


def answer_confined(
    writing: int, statements: list[str], seconds: float, megabytes: int, readable: list
) -> None:
    """In the forked process: gives up its rights, runs the session, writes the answer and exits."""
    devnull = os.open(os.devnull, os.O_RDWR)
    os.dup2(devnull, 0)
    os.dup2(devnull, 1)
    problem = confine(seconds, megabytes, readable)
    answer = json.dumps({"error": problem} if problem else play(statements)).encode()
    with contextlib.suppress(BrokenPipeError):
        while answer:
            written = os.write(writing, answer)
            answer = answer[written:]
    os._exit(0)


def read_answer(reading: int, seconds: float) -> tuple[bytes, bool]:
    """Read from a pipe until it is closed, has given too much or the time is over.

    Returns:
        The bytes, and whether the time was over.
    """
    answer = b""
    deadline = time.monotonic() + seconds
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            return answer, True
        if len(answer) >= MAX_ANSWER_BYTES:
            return answer, False
        ready, _, _ = select.select([reading], [], [], left)
        if ready:
            piece = os.read(reading, 65536)
            if not piece:
                return answer, False
            answer += piece


def kill_all_others() -> None:
    """Kill every other process of the namespace: sessions have started all of them.

    This process is the first of its namespace, so it sees no process outside.
    """
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
        outcome = run_session(statements, task["seconds"], task["megabytes"], readable)
        print(json.dumps(outcome), flush=True)


if __name__ == "__main__":
    main()
