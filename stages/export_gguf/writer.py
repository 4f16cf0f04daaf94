"""Writes one GGUF file, a tensor at a time: the memory needed is that of the largest tensor (for experts, of one layer's stack)."""

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
from stages.export_gguf.architecture import NAMES, Source, permute, sources, write_sizes
from stages.export_gguf.vocabulary import Vocabulary

F16_LARGEST = 65504.0


class Weights:
    """Tensors of a checkpoint folder by name, in one or several safetensors files."""

    def __init__(self, folder: Path):
        self._files: dict[str, Any] = {}
        for path in sorted(folder.glob("*.safetensors")):
            file = safe_open(path, framework="pt")  # NumPy has no bfloat16
            self._files |= dict.fromkeys(file.keys(), file)

    def read(self, source: Source, kind: GGMLQuantizationType) -> np.ndarray:
        """float32, fit to be packed as `kind`.

        Raises ArtifactError if a value is NaN or infinite, ContractError if one is too large for `kind`.
        """
        parts = [self._files[name].get_tensor(name) for name in source.tensors]
        for name, part in zip(source.tensors, parts, strict=True):
            least, most = map(float, torch.aminmax(part))  # both NaN if any is: one pass tells all
            if not (math.isfinite(least) and math.isfinite(most)):
                bad = int((~torch.isfinite(part)).sum())
                raise ArtifactError(
                    f"tensor {name} of the checkpoint",
                    f"{bad} of {part.numel()} weights are NaN or infinite: the training diverged",
                    "train again with a lower learning rate; nothing was exported",
                )
            # blocks of the integer types have a scale in F16, so the limit is theirs too
            if (
                kind not in (GGMLQuantizationType.F32, GGMLQuantizationType.BF16)
                and max(-least, most) > F16_LARGEST
            ):
                raise ContractError(
                    f"tensor {name}",
                    f"has a weight of {max(-least, most):.3g}, {kind.name} ends at {F16_LARGEST}",
                    "export BF16 or F32 only",
                )
        array = (torch.stack(parts) if len(parts) > 1 else parts[0]).float().numpy()
        return permute(array, source.permute) if source.permute else array

    def shape(self, source: Source) -> list[int]:
        shape = list(self._files[source.tensors[0]].get_slice(source.tensors[0]).get_shape())
        return [len(source.tensors), *shape] if len(source.tensors) > 1 else shape


def write(
    path: Path,
    folder: Path,
    config: dict[str, Any],
    vocabulary: Vocabulary,
    quantization: str,
    metadata: dict[str, str],
    hear: Callable[[float], None],
) -> list[str]:
    """Write the checkpoint in `folder` as `path`, its matrices in `quantization`; `hear` gets the share of tensors written.

    Returns the tensors that are kept in F16 since their rows do not divide into blocks.
    """
    weights, wanted = Weights(folder), GGMLQuantizationType[quantization]
    plan = [(source, weights.shape(source)) for source in sources(config)]
    kinds = [tensor_type(source, shape, wanted) for source, shape in plan]
    file = gguf.GGUFWriter(path, NAMES[config["model_type"]])
    for key, value in metadata.items():
        file.add_string(key, value)
    file.add_quantization_version(gguf.GGML_QUANT_VERSION)
    file.add_file_type(_file_type(quantization))
    write_sizes(file, config)
    vocabulary.write(file)
    for (source, shape), kind in zip(plan, kinds, strict=True):
        block, size = gguf.GGML_QUANT_SIZES[kind]
        file.add_tensor_info(
            source.name,
            shape,
            np.dtype(np.float32),
            int(np.prod(shape)) // block * size,
            raw_dtype=kind,
        )
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_ti_data_to_file()
    for done, ((source, _), kind) in enumerate(zip(plan, kinds, strict=True), 1):
        file.write_tensor_data(
            np.ascontiguousarray(quants.quantize(weights.read(source, kind), kind))
        )
        hear(done / len(plan))
    file.close()
    return [source.name for source, shape in plan if not source.full and _too_short(shape, wanted)]


def tensor_type(
    source: Source, shape: list[int], wanted: GGMLQuantizationType
) -> GGMLQuantizationType:
    """Vectors and the router stay F32; with 4 and 5 bits the output table gets 8; rows that are not whole blocks get F16."""
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
    return (
        LlamaFileType.ALL_F32 if quantization == "F32" else LlamaFileType[f"MOSTLY_{quantization}"]
    )
