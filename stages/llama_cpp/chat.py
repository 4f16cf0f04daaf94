"""A conversation with a GGUF file, which may be anybody's.

llama.cpp runs in a child process: it may crash, and it can be killed. The chat template in the file is rendered in
another (stages/chat_templates.py); llama.cpp never runs it. The header is read, within bounds, before either starts.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from typing import IO

import psutil

from data_contracts import ArtifactError, InputError
from data_contracts.foreign_text import brief
from data_contracts.tensor_files import GgufHeader, gguf_header
from stages.chat_templates import FIX, ChatTemplate
from stages.execution.shards import cores
from stages.llama_cpp import engine as llama_cpp
from stages.llama_cpp.engine import LlamaCpp, Refused, useful_threads

FETCH_AGAIN = "fetch the file again from where it comes from, or use another file"
EXPORT_AGAIN = "groundup verify NAME/gguf_model, then export it again"
LEAST_CONTEXT = 128  # tokens; with memory for fewer there is no conversation
ENDS_WITHIN = 2  # seconds
CACHE_SHARE = 0.5  # of the memory that is free, for what the model remembers of a conversation
# what llama.cpp takes for a file without a template
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class ChatModel:
    """A loaded GGUF file and its chat template.

    context: tokens that it sees at once. full_context: what the file allows; more, where memory is too small for it.
    """

    def __init__(self, llama: LlamaCpp, template: ChatTemplate, context: int):
        self._llama, self._template = llama, template
        self.full_context = llama.context
        self.context = min(llama.context, context) if context else llama.context

    def prompt(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """The tokens of a conversation, and of the opening of the answer.

        Raises:
            ArtifactError: The template goes beyond its limits, refuses the conversation, or writes
                nothing that is a token of the model.
            InputError: A message is no text.
        """
        text = self._template.render([messages], prompt=True)[0].text
        tokens = self._llama.tokenize(text, special=True)
        if not tokens:
            why = f"cannot be used: the model has no token for what it writes: {brief(text)}"
            raise ArtifactError(self._template.what, why, FIX)
        return tokens

    def stream(
        self, prompt: list[int], tokens: int, temperature: float, seed: int
    ) -> Iterator[str]:
        """See LlamaCpp.stream."""
        return self._llama.stream(prompt, tokens, {"temperature": temperature, "seed": seed})


@contextmanager
def loaded(gguf: Path, threads: int = 0) -> Iterator[ChatModel]:
    """The model, for as long as the block lasts; threads 0 are as many as the size of the file is worth.

    Raises:
        ArtifactError: The file is no sound GGUF, llama.cpp cannot load it, or ends while it answers.
    """
    gguf = Path(gguf)
    header = gguf_header(gguf)
    if header.problem:
        raise ArtifactError(f"{gguf}", f"llama.cpp cannot load it: {header.problem}", repair(gguf))
    context = affordable_context(gguf, header, psutil.virtual_memory().available)
    with (
        tempfile.TemporaryFile() as log,
        _child(gguf, threads or useful_threads(gguf, cores()), context, log) as child,
    ):
        try:
            llama = LlamaCpp(*_address(child, gguf, log))
            template = _template(gguf, header, llama)
            yield ChatModel(llama, template, context)
            llama.close()
        except Refused as error:
            raise ArtifactError(f"{gguf}", f"{error}; its log: {_end(log)}", repair(gguf)) from None
        except (OSError, HTTPException) as error:
            if not _has_ended(child, error):
                raise
            why = f"llama.cpp ended with status {child.returncode} ({error!r}): {_end(log)}"
            raise ArtifactError(f"{gguf}", why, repair(gguf)) from None


def answer(
    model: ChatModel,
    messages: Sequence[dict[str, str]],
    max_tokens: int = 256,
    temperature: float = 0.0,
    seed: int = 0,
) -> Iterator[str]:
    """Pieces of the answer to `messages` ([{"role": "user", "content": …}, …]), as they are made, up to the end of the turn.

    The prompt is made by the chat template in the file. Closing the iterator stops the model.

    Raises:
        ArtifactError: The template goes beyond its limits, or refuses the conversation.
        InputError: The prompt leaves no space for an answer, or llama.cpp refuses to give one.
    """
    prompt = model.prompt(messages)
    if len(prompt) >= model.context:
        why = f"has {len(prompt)} tokens with the chat template, the model's context is {model.context}"
        raise InputError("the prompt", why, "shorten it or start anew")
    try:
        for piece in model.stream(
            prompt, min(max_tokens, model.context - len(prompt)), temperature, seed
        ):
            if piece:
                yield piece
    except Refused as error:
        raise InputError("the answer", f"{error}", "say it otherwise or start anew") from None


def affordable_context(gguf: Path, header: GgufHeader, free: int) -> int:
    """Tokens whose cache fits half of `free` bytes, or 0 if all that the file allows do.

    Raises:
        ArtifactError: The sizes in the header are no sizes, or memory is too small for any conversation.
    """
    kind = header.settings.get("general.architecture")

    def size(key: str, default: int) -> int:
        value = header.settings.get(f"{kind}.{key}", default)
        if type(value) is not int or value < 1:
            raise ArtifactError(
                f"{gguf}", f"llama.cpp cannot load it: {kind}.{key} is {value!r}", repair(gguf)
            )
        return value

    context, layers, heads = (
        size("context_length", 1),
        size("block_count", 1),
        size("attention.head_count", 1),
    )
    width = size("attention.key_length", max(1, size("embedding_length", 1) // heads))
    per_token = (
        layers
        * size("attention.head_count_kv", heads)
        * (width + size("attention.value_length", width))
        * 2
    )
    affordable = int(free * CACHE_SHARE) // per_token
    if affordable >= context:
        return 0
    if affordable < LEAST_CONTEXT:
        why = f"its header asks for {per_token:,} bytes of memory a token, and {free:,} bytes are free"
        raise ArtifactError(
            f"{gguf}", f"llama.cpp cannot load it: {why}", "take a smaller model, or free memory"
        )
    return affordable


def repair(gguf: Path) -> str:
    """How to replace a file that cannot be used: only an artifact can be verified and made again."""
    is_artifact = (gguf.parent / "manifest.json").is_file()
    return EXPORT_AGAIN if is_artifact else FETCH_AGAIN


def _template(gguf: Path, header: GgufHeader, llama: LlamaCpp) -> ChatTemplate:
    source = header.settings.get("tokenizer.chat_template", CHATML)
    if not isinstance(source, str):
        raise ArtifactError(f"chat template of {gguf}", f"is {source!r}, no text", repair(gguf))
    return ChatTemplate(source, f"chat template of {gguf}", llama.special_tokens())


@contextmanager
def _child(
    gguf: Path, threads: int, context: int, log: IO[bytes]
) -> Iterator[subprocess.Popen[bytes]]:
    """llama.cpp in a process that ends with the block, however it ends, and with this process."""
    command = [
        sys.executable,
        "-P",
        llama_cpp.__file__,
        "serve",
        str(gguf),
        str(threads),
        str(context),
    ]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True
    ) as child:
        try:
            yield child
        finally:
            child.kill()


def _address(child: subprocess.Popen[bytes], gguf: Path, log: IO[bytes]) -> tuple[str, str]:
    """Where the child listens, and its key. Raises ArtifactError if it ends before it does."""
    assert child.stdout is not None
    for line in child.stdout:
        said = line.decode("utf-8", "replace")
        if said.startswith(f"{llama_cpp.SERVING} "):
            address, key = json.loads(said.partition(" ")[2])
            return address, key
    why = f"llama.cpp cannot load it: it ended with status {child.wait()}: {_end(log)}"
    raise ArtifactError(f"{gguf}", why, repair(gguf))


def _has_ended(child: subprocess.Popen[bytes], error: Exception) -> bool:
    """A connection breaks a moment before the process that held it is gone."""
    if isinstance(error, HTTPException | ConnectionError):
        with suppress(subprocess.TimeoutExpired):
            child.wait(ENDS_WITHIN)
    return child.poll() is not None


def _end(log: IO[bytes]) -> str:
    log.seek(0)
    return log.read()[-600:].decode("utf-8", "replace").strip() or "its log is empty"
