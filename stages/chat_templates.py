"""Chat templates are programs that come with a model. They run in a child process, within limits.

Templates are Jinja, rendered as transformers renders them (its sandbox included), by a process that
is shared by all templates of this one, started at the first of them, and ended with it.
A template can hang it, fill its memory or crash it; then that process alone ends, and an error says so.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from data_contracts import ArtifactError, GroundupError, InputError
from data_contracts.regular_files import open_regular

Messages = Sequence[Mapping[str, Any]]  # [{"role": "user", "content": "…"}, …]

MOST_BYTES = 1 << 20  # of a template; the longest in use have some 20 kB
CHILD = Path(__file__).with_name("chat_template_child.py")
FIX = "use a checkpoint or GGUF file whose chat template you trust, or correct the template"
# of the parent's environment nothing; one thread, since each takes address space
ENVIRONMENT = {
    "LANG": "C.UTF-8",
    "HOME": os.devnull,
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_VERBOSITY": "critical",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
WAITS = 20  # times the processor time that a render may take: a child may have to wait for its turn


@dataclass(frozen=True)
class Limits:
    """Of one conversation: processor seconds, bytes of memory, characters beyond four times those given."""

    seconds: int = 10
    bytes: int = 512 << 20
    characters: int = 256 << 10


@dataclass(frozen=True)
class Rendered:
    """answers: start and end, in characters, of each part of the text that the assistant says."""

    text: str
    answers: list[tuple[int, int]]


class ChatTemplate:
    """One template. variables: what it may use besides the messages, such as bos_token."""

    def __init__(
        self,
        source: str,
        what: str,
        variables: Mapping[str, str] | None = None,
        limits: Limits | None = None,
    ):
        """what: whose template it is, for errors.

        Raises:
            ArtifactError: It is longer than any template in use.
        """
        if len(source.encode("utf-8", "replace")) > MOST_BYTES:
            raise ArtifactError(what, f"is longer than {MOST_BYTES:,} bytes", FIX)
        self.source, self.what, self._variables = source, what, dict(variables or {})
        self._limits = limits or Limits()

    @classmethod
    def of_folder(cls, folder: Path, what: str, variables: Mapping[str, str]) -> ChatTemplate:
        """The chat_template.jinja of a checkpoint or tokenizer.

        Raises:
            ArtifactError: There is none, or it is no text of a size that templates have.
        """
        path = folder / "chat_template.jinja"
        try:
            if not path.is_file():
                raise ValueError("is missing, or not a plain file")
            with open_regular(path) as file:
                source = file.read(MOST_BYTES + 1).decode("utf-8")
        except (OSError, ValueError) as error:
            raise ArtifactError(what, f"cannot be read: {error}", FIX) from None
        return cls(source, what, variables)

    def render(
        self, chats: Sequence[Messages], *, marks: bool = False, prompt: bool = False
    ) -> list[Rendered]:
        """The text of each conversation.

        Args:
            chats: The conversations.
            marks: Find what the assistant says, between `{% generation %}` and `{% endgeneration %}`.
            prompt: End with the opening of the assistant's answer.

        Raises:
            ArtifactError: The template takes more time or memory than it may, makes too much text,
                none, or half of a character, crashes, or refuses a conversation.
            InputError: A conversation itself holds half of a character.
        """
        if not chats:
            return []
        _check_text(chats)
        plain = [[dict(message) for message in messages] for messages in chats]
        asked = {"template": self.source, "variables": self._variables, "chats": plain}
        reply = _Child.of(self._limits).ask(asked | {"marks": marks, "prompt": prompt})
        if "error" in reply:
            at = f" (conversation {reply['chat']})" if reply.get("chat") else ""
            raise ArtifactError(self.what, f"{reply['error']}{at}", FIX)
        return [Rendered(text, [(a, b) for a, b in spans]) for text, spans in reply["rendered"]]


def _check_text(chats: Sequence[Messages]) -> None:
    """Else the template, which repeats what it is given, would be blamed for it."""
    for number, messages in enumerate(chats):
        for value in (value for message in messages for value in message.values()):
            try:
                str(value).encode()
            except UnicodeEncodeError as error:
                half = ord(str(value)[error.start])
                why = f"holds half of a character, U+{half:04X}: bytes that are no UTF-8, perhaps"
                raise InputError(f"conversation {number}", why, "write it in UTF-8") from None


class _Child:
    """The process that renders. It is started anew after a template ended it."""

    # by process: a fork must not share its parent's pipes
    _running: ClassVar[dict[tuple[int, Limits], _Child]] = {}

    def __init__(self, limits: Limits):
        self._limits = limits
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        atexit.register(self.end)

    @classmethod
    def of(cls, limits: Limits) -> _Child:
        return cls._running.setdefault((os.getpid(), limits), cls(limits))

    def ask(self, asked: dict[str, Any]) -> dict[str, Any]:
        """The child's reply, or {"error": how it ended}."""
        with self._lock:
            process = self._started()
            patience = (len(asked["chats"]) * self._limits.seconds + 30) * WAITS
            killer = threading.Timer(patience, process.kill)
            killer.daemon = True
            killer.start()
            try:
                line = _exchange(process, json.dumps(asked).encode() + b"\n")
            except BaseException:  # half a reply is left in the pipe
                self.end()
                raise
            finally:
                killer.cancel()
            if line.endswith(b"\n"):
                return json.loads(line)
            status = process.wait()
            self.end()
            return {"error": self._told(status)}

    def end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.communicate()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.end()
        with tempfile.TemporaryFile() as log:
            process = subprocess.Popen(
                [sys.executable, "-P", "-s", "-B", str(CHILD), json.dumps(asdict(self._limits))],
                env=ENVIRONMENT,
                cwd="/",
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
            self._process = process
            assert process.stdout is not None
            if process.stdout.readline().strip() != b"ready":
                self.end()
                log.seek(0)
                said = log.read()[-500:].decode("utf-8", "replace").strip()
                fix = "install groundup again, and see that a process may be started"
                raise GroundupError(
                    "the process that renders chat templates", f"did not start: {said}", fix
                )
        return process

    def _told(self, status: int) -> str:
        if status == -signal.SIGXCPU:
            return f"takes more than {self._limits.seconds} seconds of processor time"
        if status == -signal.SIGKILL:
            return "was ended from outside, or did not come to an end"
        return f"crashes, or takes more memory than it may have (status {status})"


def _exchange(process: subprocess.Popen[bytes], question: bytes) -> bytes:
    """One line of reply; less, without its end, if the process ended."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(question)
        process.stdin.flush()
    except BrokenPipeError:
        return b""
    return process.stdout.readline()
