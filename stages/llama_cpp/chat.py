"""A conversation with a GGUF file, which may come from anybody.

llama.cpp runs in a child process: it may crash, and it can be killed. Another child renders the
chat template of the file (stages/chat_templates.py); llama.cpp never runs it. The header is read,
within bounds, before either starts.
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
from stages.execution.cores import cores
from stages.llama_cpp import engine as llama_cpp
from stages.llama_cpp.engine import LlamaCpp, Refused, useful_threads

FETCH_AGAIN = "fetch the file again from where it comes from, or use another file"
EXPORT_AGAIN = "groundup verify NAME/gguf_model, then export it again"
MIN_CONTEXT = 128  # tokens; with memory for fewer, no conversation is possible
SECONDS_TO_END = 2
CACHE_SHARE = 0.5  # of the free memory, for the key-value cache of a conversation
SHOWN_LOG = 600  # characters
# what llama.cpp uses for a file without a template
CHATML = (
    "{% for message in messages %}"
    "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class ChatModel:
    """A loaded GGUF file and its chat template.

    Attributes:
        context: Tokens that the model sees at once.
        full_context: Tokens that the file allows; more than `context` if memory is too small.
    """

    def __init__(self, llama: LlamaCpp, template: ChatTemplate, context: int):
        self._llama, self._template = llama, template
        self.full_context = llama.context
        self.context = min(llama.context, context) if context else llama.context

    def prompt(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """Return the tokens of a conversation and of the opening of the answer.

        Args:
            messages: The conversation so far.

        Raises:
            ArtifactError: The template exceeds its limits, refuses the conversation, or writes
                nothing that is a token of the model.
            InputError: A message is not text.
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
    """Provide the model, for as long as the block lasts.

    Args:
        gguf: The file.
        threads: CPU threads; 0 for as many as a file of this size can use.

    Raises:
        ArtifactError: The file is not a sound GGUF, or llama.cpp cannot load it or ends while it
            answers.
    """
    gguf = Path(gguf)
    header = gguf_header(gguf)
    if header.problem:
        raise ArtifactError(f"{gguf}", f"llama.cpp cannot load it: {header.problem}", repair(gguf))
    context = affordable_context(gguf, header, psutil.virtual_memory().available)
    threads = threads or useful_threads(gguf, cores())
    with (
        tempfile.TemporaryFile() as log,
        _child(gguf, threads, context, log) as child,
    ):
        try:
            llama = LlamaCpp(*_address(child, gguf, log))
            template = _template(gguf, header, llama)
            yield ChatModel(llama, template, context)
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
    """Yield the answer to a conversation piece by piece, to the end of the turn.

    The chat template in the file makes the prompt. Closing the iterator stops the model.

    Args:
        model: The model.
        messages: [{"role": "user", "content": …}, …]
        max_tokens: The longest answer.
        temperature: 0 for the most likely tokens.
        seed: Seed of what is sampled.

    Raises:
        ArtifactError: The template exceeds its limits, or refuses the conversation.
        InputError: The prompt leaves no space for an answer, or llama.cpp refuses to give one.
    """
    prompt = model.prompt(messages)
    if len(prompt) >= model.context:
        raise InputError(
            "the prompt",
            f"has {len(prompt)} tokens with the chat template, "
            f"the model's context is {model.context}",
            "shorten it, or start a new chat",
        )
    max_tokens = min(max_tokens, model.context - len(prompt))
    try:
        for piece in model.stream(prompt, max_tokens, temperature, seed):
            if piece:
                yield piece
    except Refused as error:
        raise InputError("the answer", f"{error}", "rephrase it, or start a new chat") from None


def affordable_context(gguf: Path, header: GgufHeader, free: int) -> int:
    """Return the number of tokens whose key-value cache fits into half of the free memory.

    Args:
        gguf: The file.
        header: Its header.
        free: Free memory in bytes.

    Returns:
        The tokens, or 0 if the whole context of the file fits.

    Raises:
        ArtifactError: The header has sizes that no model has, or memory is too small for any
            conversation.
    """
    kind = header.settings.get("general.architecture")

    def size(key: str, default: int) -> int:
        value = header.settings.get(f"{kind}.{key}", default)
        if type(value) is not int or value < 1:
            raise ArtifactError(
                f"{gguf}", f"llama.cpp cannot load it: {kind}.{key} is {value!r}", repair(gguf)
            )
        return value

    context = size("context_length", 1)
    layers = size("block_count", 1)
    heads = size("attention.head_count", 1)
    width = size("attention.key_length", max(1, size("embedding_length", 1) // heads))
    kv_heads = size("attention.head_count_kv", heads)
    value_width = size("attention.value_length", width)
    bytes_per_token = layers * kv_heads * (width + value_width) * 2
    affordable = int(free * CACHE_SHARE) // bytes_per_token
    if affordable >= context:
        return 0
    if affordable < MIN_CONTEXT:
        raise ArtifactError(
            f"{gguf}",
            f"llama.cpp cannot load it: its header asks for {bytes_per_token:,} bytes of memory "
            f"a token, and {free:,} bytes are free",
            "take a smaller model, or free memory",
        )
    return affordable


def repair(gguf: Path) -> str:
    """Return how to replace a file that cannot be used.

    Only an artifact can be verified and rebuilt.
    """
    is_artifact = (gguf.parent / "manifest.json").is_file()
    return EXPORT_AGAIN if is_artifact else FETCH_AGAIN


def _template(gguf: Path, header: GgufHeader, llama: LlamaCpp) -> ChatTemplate:
    source = header.settings.get("tokenizer.chat_template", CHATML)
    if not isinstance(source, str):
        raise ArtifactError(
            f"chat template of {gguf}", f"is {source!r}, which is not text", repair(gguf)
        )
    return ChatTemplate(source, f"chat template of {gguf}", llama.special_tokens())


@contextmanager
def _child(
    gguf: Path, threads: int, context: int, log: IO[bytes]
) -> Iterator[subprocess.Popen[bytes]]:
    """llama.cpp in a process that ends with the block and with this process."""
    program = [sys.executable, "-P", llama_cpp.__file__]
    command = [*program, "serve", str(gguf), str(threads), str(context)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, start_new_session=True
    ) as child:
        try:
            yield child
        finally:
            child.kill()


def _address(child: subprocess.Popen[bytes], gguf: Path, log: IO[bytes]) -> tuple[str, str]:
    """Return the address at which the child listens, and its key.

    Raises:
        ArtifactError: It ended before it listened.
    """
    assert child.stdout is not None
    for line in child.stdout:
        text = line.decode("utf-8", "replace")
        if text.startswith(f"{llama_cpp.SERVING} "):
            address, key = json.loads(text.partition(" ")[2])
            return address, key
    why = f"llama.cpp cannot load it: it ended with status {child.wait()}: {_end(log)}"
    raise ArtifactError(f"{gguf}", why, repair(gguf))


def _has_ended(child: subprocess.Popen[bytes], error: Exception) -> bool:
    """Return whether the child has ended.

    A connection breaks a moment before its process is gone.
    """
    if isinstance(error, HTTPException | ConnectionError):
        with suppress(subprocess.TimeoutExpired):
            child.wait(SECONDS_TO_END)
    return child.poll() is not None


def _end(log: IO[bytes]) -> str:
    log.seek(0)
    return log.read()[-SHOWN_LOG:].decode("utf-8", "replace").strip() or "its log is empty"
