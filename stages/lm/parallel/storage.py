"""Tensors that any number of ranks write and any other number reads.

Uses torch.distributed.checkpoint with safetensors files, no pickle.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch.distributed.checkpoint as dcp
from torch import Tensor

from stages.lm.parallel.collectives import world_size


def save_tensors(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write the shards of every rank. All ranks must call it.

    Args:
        folder: Where the files go.
        tensors: Tensors by name, the same names on every rank.
    """
    writer = dcp.HuggingFaceStorageWriter(str(folder), save_distributed=True)
    with _without_process_group_warning():
        dcp.save(dict(tensors), storage_writer=writer, no_dist=world_size() == 1)


def load_tensors(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Read into `tensors`, in place. All ranks must call it.

    The files are not checked here: compare their digests first.

    Args:
        folder: Where `save_tensors` wrote, with any number of ranks.
        tensors: Tensors by name, the same names on every rank.
    """
    reader = dcp.HuggingFaceStorageReader(str(folder))
    with _without_process_group_warning():
        dcp.load(dict(tensors), storage_reader=reader, no_dist=world_size() == 1)


@contextmanager
def _without_process_group_warning() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield
