"""Headers of the two file formats that hold tensors, read from scratch and believed in nothing. None needs torch.

Specs: https://github.com/huggingface/safetensors#format and https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import json
import struct
from collections.abc import Collection
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

from data_contracts.files import no_duplicates
from data_contracts.regular_files import open_regular

MAX_SAFETENSORS_HEADER = 100_000_000  # the format's own limit
MAX_GGUF_TEXT = 64 << 20  # far above any chat template
MAX_GGUF_KEPT = 2 << 20  # a longer text is passed over
MAX_GGUF_SETTINGS, MAX_GGUF_TENSORS, MAX_GGUF_TEXTS = (
    1 << 14,
    1 << 20,
    1 << 25,
)  # far above any model's
MAX_DIMENSIONS, MAX_SIZE = 8, 1 << 63  # of a tensor: their product must not take for ever

_SAFETENSORS_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
    "F8_E4M3": 1, "F8_E5M2": 1,
}  # fmt: skip
_GGUF_SCALARS = {
    0: 1,
    1: 1,
    2: 2,
    3: 2,
    4: 4,
    5: 4,
    6: 4,
    7: 1,
    10: 8,
    11: 8,
    12: 8,
}  # value type → bytes
_GGUF_NUMBERS = dict(
    zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True)
)  # value type → struct
_GGUF_STRING, _GGUF_ARRAY = 8, 9


@dataclass
class GgufHeader:
    """settings: the numbers and texts among them, not the arrays. problem: the first thing that is wrong, if anything."""

    settings: dict[str, int | float | str] = field(default_factory=dict)
    problem: str | None = None


def safetensors_header(
    path: Path, types: Collection[str] = _SAFETENSORS_BYTES
) -> tuple[dict[str, list[int]], str | None]:
    """The shape of each tensor, and the first thing that is wrong with the header, if anything.

    types: those that a tensor may have. Sound means: as long as it says, no key twice, and tensors that fill the file one after the
    other without gap or overlap.
    """
    size = path.stat().st_size
    with open_regular(path) as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if length > min(size - 8, MAX_SAFETENSORS_HEADER):
            return {}, f"the header claims {length:,} bytes of a file of {size:,}"
        try:
            header = json.loads(file.read(length), object_pairs_hook=no_duplicates)
            entries = {
                name: _entry(value, types)
                for name, value in header.items()
                if name != "__metadata__"
            }
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            return {}, f"the header cannot be read: {type(error).__name__}: {error}"
    shapes = {name: shape for name, (shape, _, _, _) in entries.items()}
    end = 0
    for name, (shape, width, begin, stop) in sorted(entries.items(), key=lambda item: item[1][2:]):
        if begin != end or stop - begin != prod(shape) * width:
            return (
                shapes,
                f"tensor {name} lies at {begin}..{stop}, which does not fit its shape {shape} or its neighbour",
            )
        end = stop
    return (
        shapes,
        None
        if 8 + length + end == size
        else f"tensors end at byte {8 + length + end:,}, the file at {size:,}",
    )


def gguf_problem(path: Path) -> str | None:
    """The first thing that is wrong with a GGUF file's header, tensor table or length, if anything."""
    return gguf_header(path).problem


def gguf_header(path: Path) -> GgufHeader:
    """What the header of a GGUF file says, read within bounds. Raises OSError if the file cannot be read."""
    found, size = GgufHeader(), path.stat().st_size
    try:
        with open_regular(path) as file:
            magic, version, tensors, pairs = struct.unpack("<4sIQQ", file.read(24))
            if (magic, version) != (b"GGUF", 3):
                raise ValueError("not GGUF version 3")
            if not 0 < tensors <= min(size, MAX_GGUF_TENSORS) or pairs > min(
                size, MAX_GGUF_SETTINGS
            ):
                raise ValueError(
                    f"claims {tensors:,} tensors and {pairs:,} settings in {size:,} bytes"
                )
            found.settings = _gguf_settings(file, pairs, size)
            table = [_gguf_tensor(file) for _ in range(tensors)]
            _check_gguf_tensors(
                table, found.settings.get("general.alignment") or 32, file.tell(), size
            )
    except (struct.error, ArithmeticError, ValueError, KeyError) as error:
        found.problem = (
            str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"
        )
        found.problem = f"the header cannot be read: {found.problem}"
    return found


def _check_gguf_tensors(
    table: list[tuple[str, int, int]], alignment: Any, end: int, size: int
) -> None:
    """Raises ValueError unless tensors lie one after the other, aligned, within the file."""
    if type(alignment) is not int or not 0 < alignment <= 1 << 20:
        raise ValueError(f"an alignment of {alignment!r}")
    data = -(-end // alignment) * alignment
    names = set()
    for name, length, offset in sorted(table, key=lambda row: row[2]):
        if name in names:
            raise ValueError(f"tensor {name} occurs twice")
        if offset % alignment or data + offset < end:
            raise ValueError(
                f"tensor {name} at {offset} is not aligned to {alignment} or overlaps the one before"
            )
        names.add(name)
        end = data + offset + length
    if end > size:
        raise ValueError(f"tensors end at byte {end:,}, the file at {size:,}: it was cut")


def _entry(value: dict[str, Any], types: Collection[str]) -> tuple[list[int], int, int, int]:
    """shape, bytes per element, begin, stop"""
    shape, (begin, stop) = value["shape"], value["data_offsets"]
    if len(shape) > MAX_DIMENSIONS:
        raise ValueError(f"a shape of {len(shape):,} dimensions")
    if any(type(n) is not int or not 0 <= n < MAX_SIZE for n in (*shape, begin, stop)):
        raise ValueError(
            f"shape {shape} or offsets {begin}..{stop} are no whole numbers, or too large"
        )
    if value["dtype"] not in _SAFETENSORS_BYTES:
        raise ValueError(f"dtype {value['dtype']!r} is not known")
    if value["dtype"] not in types:
        raise ValueError(f"dtype {value['dtype']!r} is none of {', '.join(types)}")
    return shape, _SAFETENSORS_BYTES[value["dtype"]], begin, stop


def _gguf_settings(file: BinaryIO, pairs: int, size: int) -> dict[str, int | float | str]:
    keys: set[str] = set()
    settings = {}
    for _ in range(pairs):
        key, value = _gguf_setting(file, size)
        keys.add(key)
        if value is not None:
            settings[key] = value
    if len(keys) != pairs:
        raise ValueError("a setting occurs twice")
    return settings


def _gguf_setting(file: BinaryIO, size: int) -> tuple[str, int | float | str | None]:
    """A key, and its value if that is a number or a text of moderate length; anything else is passed over."""
    key = _gguf_text(file)
    (kind,) = struct.unpack("<I", file.read(4))
    if kind in _GGUF_NUMBERS:
        return key, struct.unpack(f"<{_GGUF_NUMBERS[kind]}", file.read(_GGUF_SCALARS[kind]))[0]
    if kind == _GGUF_STRING:
        text = _gguf_text(file)
        return key, text if len(text) <= MAX_GGUF_KEPT else None
    if kind != _GGUF_ARRAY:
        raise ValueError(f"setting {key} has a value of type {kind}")
    inner, count = struct.unpack("<IQ", file.read(12))
    if inner in _GGUF_SCALARS and count <= size:
        file.seek(_GGUF_SCALARS[inner] * count, 1)
    elif inner == _GGUF_STRING and count <= MAX_GGUF_TEXTS:
        for _ in range(count):
            _gguf_text(file)
    else:
        raise ValueError(f"setting {key} is an array of {count:,} values of type {inner}")
    return key, None


def _gguf_tensor(file: BinaryIO) -> tuple[str, int, int]:
    """name, bytes, offset"""
    from gguf.constants import (
        GGML_QUANT_SIZES,
        GGMLQuantizationType,
    )  # most readers of contracts never see a GGUF

    name = _gguf_text(file)
    (dimensions,) = struct.unpack("<I", file.read(4))
    if not 0 < dimensions <= 4:
        raise ValueError(f"tensor {name} has {dimensions} dimensions")
    shape = struct.unpack(f"<{dimensions}Q", file.read(8 * dimensions))
    kind, offset = struct.unpack("<IQ", file.read(12))
    block, width = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
    if not prod(shape) or prod(shape) % block:
        raise ValueError(f"tensor {name} of shape {shape} is empty, or not a multiple of {block}")
    return name, prod(shape) // block * width, offset


def _gguf_text(file: BinaryIO) -> str:
    (length,) = struct.unpack("<Q", file.read(8))
    if length > MAX_GGUF_TEXT:
        raise ValueError(f"a text of {length:,} bytes")
    data = file.read(length)
    if len(data) != length:
        raise ValueError("the file ends inside a text")
    return data.decode("utf-8")
