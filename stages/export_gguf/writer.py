"""Writes one GGUF file, a tensor at a time.

The memory that this needs is that of the largest tensor; for experts, that of one layer's stack.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType, LlamaFileType, quants
from safetensors import safe_open

from data_contracts import ArtifactError, ContractError
from data_contracts.checkpoint_config import CheckpointConfig
from stages.export_gguf.architecture import TensorSource, permute, sources, write_sizes
from stages.export_gguf.vocabulary import Vocabulary

MAX_F16 = 65504.0


class Weights:
    """Tensors of a checkpoint folder by name, in one or several safetensors files."""

    def __init__(self, folder: Path):
        self._files: dict[str, Any] = {}
        for path in sorted(folder.glob("*.safetensors")):
            file = safe_open(path, framework="pt")  # NumPy has no bfloat16
            self._files |= dict.fromkeys(file.keys(), file)

    def read(self, source: TensorSource, kind: GGMLQuantizationType) -> np.ndarray:
        """Return a tensor in float32, ready to be packed as `kind`.

        Args:
            source: The tensor.
            kind: Its type in the file.

        Raises:
            ArtifactError: A value is NaN or infinite.
            ContractError: A value is too large for `kind`.
        """
        parts = [self._files[name].get_tensor(name) for name in source.tensors]
        for name, part in zip(source.tensors, parts, strict=True):
            _check_values(name, part, kind)
        tensor = torch.stack(parts) if len(parts) > 1 else parts[0]
        array = tensor.float().numpy()
        return permute(array, source.permute) if source.permute else array

    def shape(self, source: TensorSource) -> list[int]:
        """Return the shape of a tensor, without reading it."""
        first = source.tensors[0]
        shape = list(self._files[first].get_slice(first).get_shape())
        return [len(source.tensors), *shape] if len(source.tensors) > 1 else shape


def _check_values(name: str, tensor: torch.Tensor, kind: GGMLQuantizationType) -> None:
    smallest, largest = map(float, torch.aminmax(tensor))  # both are NaN if any value is
    if not (math.isfinite(smallest) and math.isfinite(largest)):
        bad = int((~torch.isfinite(tensor)).sum())
        raise ArtifactError(
            f"tensor {name} of the checkpoint",
            f"{bad} of {tensor.numel()} weights are NaN or infinite: the training diverged",
            "train again with a lower learning rate; nothing was exported",
        )
    if kind in (GGMLQuantizationType.F32, GGMLQuantizationType.BF16):
        return
    # blocks of the integer types have a scale in F16, so the limit is theirs, too
    magnitude = max(-smallest, largest)
    if magnitude > MAX_F16:
        raise ContractError(
            f"tensor {name}",
            f"has a weight of {magnitude:.3g}, {kind.name} ends at {MAX_F16}",
            "export BF16 or F32 only",
        )


def write(
    path: Path,
    folder: Path,
    config: CheckpointConfig,
    vocabulary: Vocabulary,
    quantization: str,
    metadata: dict[str, str],
    on_progress: Callable[[float], None],
) -> list[str]:
    """Write the checkpoint in `folder` as a GGUF file.

    Args:
        path: The file.
        folder: The checkpoint.
        config: Its config.json, as `architecture.read_config` returns it.
        vocabulary: Its vocabulary.
        quantization: The type of its matrices.
        metadata: Further texts for the header.
        on_progress: Called with the share of tensors written.

    Returns:
        The tensors that stay in F16 because their rows do not divide into blocks.
    """
    weights, wanted = Weights(folder), GGMLQuantizationType[quantization]
    plan = [(source, weights.shape(source)) for source in sources(config)]
    kinds = [tensor_type(source, shape, wanted) for source, shape in plan]
    file = gguf.GGUFWriter(path, config.family.llama_cpp_architecture)
    for key, value in metadata.items():
        file.add_string(key, value)
    file.add_quantization_version(gguf.GGML_QUANT_VERSION)
    file.add_file_type(_file_type(quantization))
    write_sizes(file, config)
    vocabulary.write(file)
    for (source, shape), kind in zip(plan, kinds, strict=True):
        block, size = gguf.GGML_QUANT_SIZES[kind]
        bytes_ = int(np.prod(shape)) // block * size
        file.add_tensor_info(source.name, shape, np.dtype(np.float32), bytes_, raw_dtype=kind)
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_ti_data_to_file()
    for done, ((source, _), kind) in enumerate(zip(plan, kinds, strict=True), 1):
        packed = quants.quantize(weights.read(source, kind), kind)
        file.write_tensor_data(np.ascontiguousarray(packed))
        on_progress(done / len(plan))
    file.close()
    return [source.name for source, shape in plan if not source.full and _too_short(shape, wanted)]


def tensor_type(
    source: TensorSource, shape: list[int], wanted: GGMLQuantizationType
) -> GGMLQuantizationType:
    """Return the type of one tensor.

    Vectors and the router stay F32. Rows that are not whole blocks get F16. With 4 or 5 bits, the
    output table gets 8.

    Args:
        source: The tensor.
        shape: Its shape.
        wanted: The type of the file's matrices.
    """
    if source.full or len(shape) == 1:
        return GGMLQuantizationType.F32
    if _too_short(shape, wanted):
        return GGMLQuantizationType.F16
    if source.table and wanted.name[:2] in ("Q4", "Q5"):
        return GGMLQuantizationType.Q8_0
    return wanted


def _too_short(shape: list[int], kind: GGMLQuantizationType) -> bool:
    return shape[-1] % gguf.GGML_QUANT_SIZES[kind][0] != 0


def _file_type(quantization: str) -> LlamaFileType:
    if quantization == "F32":
        return LlamaFileType.ALL_F32
    return LlamaFileType[f"MOSTLY_{quantization}"]
