"""GGUF files, written byte by byte, that no ordinary writer creates."""

from __future__ import annotations

import struct


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def gguf_file(
    *settings: bytes,
    tensors: bytes = b"",
    count: int = 1,
    claimed: int | None = None,
    data: bytes = b"",
) -> bytes:
    number = len(settings) if claimed is None else claimed
    return struct.pack("<4sIQQ", b"GGUF", 3, count, number) + b"".join(settings) + tensors + data


def setting(key: bytes, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def tensor(name: bytes, shape: list[int], kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)
