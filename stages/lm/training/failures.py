"""Errors of a training that ran out of memory or diverged: what to change, by name and value."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from data_contracts import ConfigError, InputError
from stages.lm.training.step import largest_divisor

MAX_SKIPPED_IN_ROW = 10  # after that many bad steps in a row, training has failed
MAX_DOCUMENTS_NAMED = 8


@contextmanager
def explained_out_of_memory(
    rows_per_rank: int, micro_batch_size: int, device: torch.device
) -> Iterator[None]:
    """Raise a ConfigError that gives a smaller micro-batch if the device's memory runs out.

    Args:
        rows_per_rank: Rows of a batch on one device.
        micro_batch_size: Rows at once.
        device: The device.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        fix = "give it more devices, or a model with a shorter context"
        if micro_batch_size > 1:
            fewer = largest_divisor(rows_per_rank, micro_batch_size // 2)
            fix = (
                f"run it again with --set STAGE.compute.micro_batch_size={fewer} "
                "(STAGE: its name); it continues from the last resume checkpoint"
            )
        raise ConfigError(
            f"compute.micro_batch_size = {micro_batch_size}",
            f"so many rows at once need more memory than {device} has: "
            f"{str(error).splitlines()[0]}",
            fix,
        ) from None


def diverged(step: int, documents: Sequence[str]) -> InputError:
    """Return the error after `MAX_SKIPPED_IN_ROW` bad steps in a row.

    Args:
        step: The last of them.
        documents: The documents that it read.
    """
    named = ", ".join(documents[:MAX_DOCUMENTS_NAMED])
    more = " …" if len(documents) > MAX_DOCUMENTS_NAMED else ""
    return InputError(
        f"training step {step}",
        f"{MAX_SKIPPED_IN_ROW} steps in a row had a loss or gradient that is not finite or far "
        f"above the usual; the last one read documents {named}{more}",
        "set a lower learning_rate and muon_learning_rate, or look at these documents",
    )
