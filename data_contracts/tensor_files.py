"""Read the headers of the two file formats that hold tensors, without torch and without trust.

Specs: https://github.com/huggingface/safetensors#format and
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

from data_contracts.foreign_text import brief
from data_contracts.json_files import parse_bounded
from data_contracts.regular_files import open_regular

MAX_SAFETENSORS_HEADER = 100_000_000  # bytes; the format's own limit
MAX_DIMENSIONS = 8
MAX_REASON_CHARS = 300  # of an error that repeats what the file says
MAX_SIZE = 1 << 63  # of one dimension: the product of all must not take forever

# The limits below lie far above what any model needs.
MAX_GGUF_TEXT = 64 << 20
MAX_GGUF_KEPT = 2 << 20  # a longer text is skipped
MAX_GGUF_SETTINGS = 1 << 14
MAX_GGUF_TENSORS = 1 << 20
MAX_GGUF_TEXTS = 1 << 25

_SAFETENSORS_BYTES = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U64": 8,
    "U32": 4,
    "U16": 2,
    "U8": 1,
    "BOOL": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
}
_GGUF_NUMBERS = {  # value type -> format of struct
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_GGUF_STRING = 8
_GGUF_ARRAY = 9
_GGUF_DEFAULT_ALIGNMENT = 32
_MAX_GGUF_ALIGNMENT = 1 << 20


@dataclass(frozen=True)
class _SafetensorsEntry:
    """One tensor of a safetensors header. begin, end: bytes from the end of the header."""

    shape: list[int]
    element_bytes: int
    begin: int
    end: int


@dataclass(frozen=True)
class _GgufTensor:
    """One row of a GGUF tensor table. length, offset: bytes."""

    name: str
    length: int
    offset: int


@dataclass
class GgufHeader:
    """What a GGUF header says.

    Attributes:
        settings: Those that are a number or a text of moderate length, by key.
        problem: The first thing that is wrong with the file, if anything.
    """

    settings: dict[str, int | float | str] = field(default_factory=dict)
    problem: str | None = None


def safetensors_header(
    path: Path, types: Collection[str] = _SAFETENSORS_BYTES
) -> tuple[dict[str, list[int]], str | None]:
    """Read the header of a safetensors file.

    A sound header is as long as it claims and names every tensor once. Its tensors fill the file
    one after the other, without gap or overlap.

    Args:
        path: The file.
        types: The data types that a tensor may have.

    Returns:
        The shape of each tensor, and the first thing that is wrong with the file, if anything.

    Raises:
        OSError: The file cannot be read.
    """
    size = path.stat().st_size
    with open_regular(path) as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if length > min(size - 8, MAX_SAFETENSORS_HEADER):
            return {}, f"the header claims {length:,} bytes of a file of {size:,}"
        try:
            entries = _safetensors_entries(file.read(length), types)
        except ValueError as error:
            return {}, f"the header cannot be read: {error}"
        except RecursionError:
            return {}, "the header cannot be read: it is nested too deeply"
    shapes = {name: entry.shape for name, entry in entries.items()}
    return shapes, _layout_problem(entries, 8 + length, size)


def _safetensors_entries(data: bytes, types: Collection[str]) -> dict[str, _SafetensorsEntry]:
    """Parse a header. Raises ValueError or RecursionError for one that is not sound."""
    header = parse_bounded(data)
    if not isinstance(header, dict):
        raise ValueError(f"it is {_json_type(header)}, not an object")
    return {
        name: _safetensors_entry(name, value, types)
        for name, value in header.items()
        if name != "__metadata__"
    }


def _safetensors_entry(name: str, value: Any, types: Collection[str]) -> _SafetensorsEntry:
    if not isinstance(value, dict):
        raise ValueError(f"tensor {name[:60]!r} is {_json_type(value)}, not an object")
    missing = [key for key in ("dtype", "shape", "data_offsets") if key not in value]
    if missing:
        raise ValueError(f"tensor {name[:60]!r} has no {missing[0]}")
    shape, offsets, dtype = value["shape"], value["data_offsets"], value["dtype"]
    for key, numbers in (("shape", shape), ("data_offsets", offsets)):
        if not isinstance(numbers, list):
            raise ValueError(
                f"{key} of tensor {name[:60]!r} is {_json_type(numbers)}, not an array"
            )
    if len(offsets) != 2:
        raise ValueError(
            f"data_offsets of tensor {name[:60]!r} has {len(offsets):,} numbers, not 2"
        )
    if len(shape) > MAX_DIMENSIONS:
        raise ValueError(f"a shape of {len(shape):,} dimensions")
    begin, end = offsets
    if not all(_is_size(number) for number in (*shape, begin, end)):
        raise ValueError(
            f"shape {brief(shape)} or offsets {brief(begin)}..{brief(end)} are not whole numbers, "
            "or too large"
        )
    if not isinstance(dtype, str) or dtype not in _SAFETENSORS_BYTES:
        raise ValueError(f"dtype {brief(dtype)} is not known")
    if dtype not in types:
        raise ValueError(f"dtype {dtype!r} is none of {', '.join(types)}")
    return _SafetensorsEntry(shape, _SAFETENSORS_BYTES[dtype], begin, end)


def _is_size(number: Any) -> bool:
    return type(number) is int and 0 <= number < MAX_SIZE


def _json_type(value: Any) -> str:
    """Return what JSON calls the type of a value, with its article."""
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean"}
    return names.get(type(value), "null" if value is None else "a number")


def _layout_problem(
    entries: Mapping[str, _SafetensorsEntry], data_start: int, size: int
) -> str | None:
    """Return the first tensor that does not follow the one before, or a file of another length."""
    expected = 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
        length = prod(entry.shape) * entry.element_bytes
        if entry.begin != expected or entry.end - entry.begin != length:
            return (
                f"tensor {name} lies at {entry.begin}..{entry.end}, which does not fit its shape "
                f"{entry.shape} or its neighbour"
            )
        expected = entry.end
    end = data_start + expected
    return None if end == size else f"tensors end at byte {end:,}, the file at {size:,}"


def gguf_problem(path: Path) -> str | None:
    """Return the first fault of a GGUF file's header, tensor table or length, if any."""
    return gguf_header(path).problem


def gguf_header(path: Path) -> GgufHeader:
    """Read the header of a GGUF file within bounds.

    Raises:
        OSError: The file cannot be read.
    """
    header = GgufHeader()
    size = path.stat().st_size
    try:
        with open_regular(path) as file:
            _read_gguf(file, size, header)
    except ValueError as error:
        # A subclass (of bad UTF-8, say) needs its name to be understood.
        reason = str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"
        header.problem = f"the header cannot be read: {reason[:MAX_REASON_CHARS]}"
    except (struct.error, ArithmeticError, KeyError) as error:
        header.problem = f"the header cannot be read: {type(error).__name__}: {error}"
    return header


def _read_gguf(file: BinaryIO, size: int, header: GgufHeader) -> None:
    """Fill in the settings of `header` and check the tensor table.

    Raises:
        ValueError, struct.error, ArithmeticError, KeyError: The file is not sound.
    """
    magic, version, tensors, pairs = struct.unpack("<4sIQQ", file.read(24))
    if (magic, version) != (b"GGUF", 3):
        raise ValueError("not GGUF version 3")
    has_possible_counts = 0 < tensors <= min(size, MAX_GGUF_TENSORS) and pairs <= min(
        size, MAX_GGUF_SETTINGS
    )
    if not has_possible_counts:
        raise ValueError(f"claims {tensors:,} tensors and {pairs:,} settings in {size:,} bytes")
    header.settings = _gguf_settings(file, pairs, size)
    table = [_gguf_tensor(file) for _ in range(tensors)]
    alignment = header.settings.get("general.alignment") or _GGUF_DEFAULT_ALIGNMENT
    _check_gguf_tensors(table, alignment, file.tell(), size)


def _check_gguf_tensors(table: list[_GgufTensor], alignment: Any, end: int, size: int) -> None:
    """Raise ValueError unless tensors lie one after the other, aligned, within the file."""
    if type(alignment) is not int or not 0 < alignment <= _MAX_GGUF_ALIGNMENT:
        raise ValueError(f"an alignment of {alignment!r}")
    data = -(-end // alignment) * alignment
    names = set()
    for tensor in sorted(table, key=lambda row: row.offset):
        if tensor.name in names:
            raise ValueError(f"tensor {tensor.name} occurs twice")
        if tensor.offset % alignment or data + tensor.offset < end:
            raise ValueError(
                f"tensor {tensor.name} at {tensor.offset} is not aligned to {alignment} "
                "or overlaps the one before"
            )
        names.add(tensor.name)
        end = data + tensor.offset + tensor.length
    if end > size:
        raise ValueError(f"tensors end at byte {end:,}, the file at {size:,}: it was cut")


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
    """Return a key and its value.

    The value is None for an array or a long text, which are skipped.
    """
    key = _gguf_text(file)
    (kind,) = struct.unpack("<I", file.read(4))
    if kind in _GGUF_NUMBERS:
        return key, _gguf_number(file, kind)
    if kind == _GGUF_STRING:
        text = _gguf_text(file)
        return key, text if len(text) <= MAX_GGUF_KEPT else None
    if kind != _GGUF_ARRAY:
        raise ValueError(f"setting {key} has a value of type {kind}")
    _skip_gguf_array(file, key, size)
    return key, None


def _gguf_number(file: BinaryIO, kind: int) -> int | float:
    layout = struct.Struct(f"<{_GGUF_NUMBERS[kind]}")
    number: int | float = layout.unpack(file.read(layout.size))[0]
    return number


def _skip_gguf_array(file: BinaryIO, key: str, size: int) -> None:
    inner, count = struct.unpack("<IQ", file.read(12))
    if inner in _GGUF_NUMBERS and count <= size:
        file.seek(struct.calcsize(f"<{_GGUF_NUMBERS[inner]}") * count, 1)
    elif inner == _GGUF_STRING and count <= MAX_GGUF_TEXTS:
        for _ in range(count):
            _gguf_text(file)
    else:
        raise ValueError(f"setting {key} is an array of {count:,} values of type {inner}")


def _gguf_tensor(file: BinaryIO) -> _GgufTensor:
    # Imported here because most readers of contracts never see a GGUF file.
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    name = _gguf_text(file)
    (dimensions,) = struct.unpack("<I", file.read(4))
    if not 0 < dimensions <= 4:
        raise ValueError(f"tensor {name} has {dimensions} dimensions")
    shape = struct.unpack(f"<{dimensions}Q", file.read(8 * dimensions))
    kind, offset = struct.unpack("<IQ", file.read(12))
    block_elements, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
    elements = prod(shape)
    if not elements or elements % block_elements:
        raise ValueError(
            f"tensor {name} of shape {shape} is empty, or not a multiple of {block_elements}"
        )
    return _GgufTensor(name, elements // block_elements * block_bytes, offset)


def _gguf_text(file: BinaryIO) -> str:
    (length,) = struct.unpack("<Q", file.read(8))
    if length > MAX_GGUF_TEXT:
        raise ValueError(f"a text of {length:,} bytes")
    data = file.read(length)
    if len(data) != length:
        raise ValueError("the file ends inside a text")
    return data.decode("utf-8")
