"""Chat templates are programs that come with a model. They run in a child process, within limits.

Templates are Jinja, rendered as transformers renders them, sandbox included. All templates of this
process share one child, which starts with the first template and ends with this process. A template
can hang the child, fill its memory or crash it. Then the child alone ends, and an error says so.
"""

from __future__ import annotations

import atexit
import os
import signal
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from data_contracts import ArtifactError, GroundupError, InputError
from data_contracts.regular_files import open_regular
from stages.execution.bounded_child import BoundedChild

Messages = Sequence[Mapping[str, Any]]  # [{"role": "user", "content": "…"}, …]

MAX_BYTES = 1 << 20  # of a template; the longest in use have some 20 kB
CHILD = Path(__file__).with_name("chat_template_child.py")
FIX = "use a checkpoint or GGUF file whose chat template you trust, or correct the template"
# nothing of the parent's environment; one thread, since each takes address space
ENVIRONMENT = {
    "LANG": "C.UTF-8",
    "HOME": os.devnull,
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_VERBOSITY": "critical",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
# The child may have to wait for a processor: so many times its limit of processor time, and of the
# seconds that it takes to start.
PATIENCE = 20
SECONDS_TO_START = 30
SHOWN_LOG = 500  # characters


@dataclass(frozen=True)
class Limits:
    """What one conversation may take.

    Attributes:
        seconds: Processor time.
        bytes: Memory.
        characters: Characters of the text beyond four times those of the messages.
    """

    seconds: int = 10
    bytes: int = 512 << 20
    characters: int = 256 << 10


@dataclass(frozen=True)
class Rendered:
    """A conversation as text.

    Attributes:
        text: The whole text.
        answers: Start and end, in characters, of each part that the assistant says.
    """

    text: str
    answers: list[tuple[int, int]]


class ChatTemplate:
    """One chat template."""

    def __init__(
        self,
        source: str,
        what: str,
        variables: Mapping[str, str] | None = None,
        limits: Limits | None = None,
    ):
        """
        Args:
            source: The template in Jinja.
            what: Whose template it is, for messages.
            variables: What it may use besides the messages, such as bos_token.
            limits: What one conversation may take.

        Raises:
            ArtifactError: The template is longer than any in use.
        """
        if len(source.encode("utf-8", "replace")) > MAX_BYTES:
            raise ArtifactError(what, f"is longer than {MAX_BYTES:,} bytes", FIX)
        self.source, self.what, self._variables = source, what, dict(variables or {})
        self._limits = limits or Limits()

    @classmethod
    def of_folder(cls, folder: Path, what: str, variables: Mapping[str, str]) -> ChatTemplate:
        """Return the chat_template.jinja of a checkpoint or tokenizer.

        Raises:
            ArtifactError: There is no such file, or it is not text, or it is too long.
        """
        path = folder / "chat_template.jinja"
        try:
            if not path.is_file():
                raise ValueError("is missing, or not a plain file")
            with open_regular(path) as file:
                source = file.read(MAX_BYTES + 1).decode("utf-8")
        except (OSError, ValueError) as error:
            raise ArtifactError(what, f"cannot be read: {error}", FIX) from None
        return cls(source, what, variables)

    def render(
        self, chats: Sequence[Messages], *, marks: bool = False, prompt: bool = False
    ) -> list[Rendered]:
        """Return the text of each conversation.

        Args:
            chats: The conversations.
            marks: Find what the assistant says, between `{% generation %}` and
                `{% endgeneration %}`.
            prompt: End with the opening of the assistant's answer.

        Raises:
            ArtifactError: The template takes more time or memory than it may, makes no text, too
                much of it, or half of a character, crashes, or refuses a conversation.
            InputError: A conversation itself contains half of a character.
        """
        if not chats:
            return []
        _check_text(chats)
        request = {
            "template": self.source,
            "variables": self._variables,
            "chats": [list(map(dict, messages)) for messages in chats],
            "marks": marks,
            "prompt": prompt,
        }
        reply = _SharedChild.of(self._limits).render(request)
        if "error" in reply:
            at = f" (conversation {reply['chat']})" if reply.get("chat") else ""
            raise ArtifactError(self.what, f"{reply['error']}{at}", FIX)
        rendered = []
        for text, spans in reply["rendered"]:
            rendered.append(Rendered(text, [(start, end) for start, end in spans]))
        return rendered


def _check_text(chats: Sequence[Messages]) -> None:
    """Otherwise the template, which repeats the messages, would be blamed for what they contain."""
    for number, messages in enumerate(chats):
        for message in messages:
            for value in message.values():
                _check_characters(str(value), number)


def _check_characters(text: str, number: int) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = ord(text[error.start])
        why = f"holds half of a character, U+{half:04X}: perhaps from bytes that are not UTF-8"
        raise InputError(f"conversation {number}", why, "write it in UTF-8") from None


class _SharedChild:
    """The process that renders, for all threads. A new one starts after a template ended it."""

    # by process: a fork must not share its parent's pipes
    _shared: ClassVar[dict[tuple[int, Limits], _SharedChild]] = {}

    def __init__(self, limits: Limits):
        self._limits = limits
        self._lock = threading.Lock()
        self._child: BoundedChild | None = None
        atexit.register(self.end)

    @classmethod
    def of(cls, limits: Limits) -> _SharedChild:
        return cls._shared.setdefault((os.getpid(), limits), cls(limits))

    def render(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the reply of the child, or {"error": how it ended}."""
        with self._lock:
            child = self._started()
            seconds = len(request["chats"]) * self._limits.seconds + SECONDS_TO_START
            killer = threading.Timer(seconds * PATIENCE, child.kill)
            killer.daemon = True
            killer.start()
            try:
                reply = child.ask(request)
            finally:
                killer.cancel()
            if reply is not None:
                return reply
            status = child.wait()
            self.end()
            return {"error": self._how_it_ended(status)}

    def end(self) -> None:
        if self._child is not None:
            self._child.end()
            self._child = None

    def _started(self) -> BoundedChild:
        if self._child is not None and self._child.is_running:
            return self._child
        self.end()
        with tempfile.TemporaryFile() as log:
            self._child = BoundedChild(CHILD, asdict(self._limits), ENVIRONMENT, log)
            if self._child.read_line().strip() != b"ready":
                self.end()
                log.seek(0)
                message = log.read()[-SHOWN_LOG:].decode("utf-8", "replace").strip()
                raise GroundupError(
                    "the process that renders chat templates",
                    f"did not start: {message}",
                    "install groundup again, and see that a process may be started",
                )
        return self._child

    def _how_it_ended(self, status: int) -> str:
        if status == -signal.SIGXCPU:
            return f"takes more than {self._limits.seconds} seconds of processor time"
        if status == -signal.SIGKILL:
            return "was ended from outside, or did not come to an end"
        return f"crashes, or takes more memory than it may have (status {status})"
