"""Examines a checkpoint: multiple choice through lm-eval, bits per byte on held-out pages, each beside its baseline."""
