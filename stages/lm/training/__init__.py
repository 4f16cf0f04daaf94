"""The one training loop and its parts: optimizers, batches, resume checkpoints, the forecast of its time."""
