"""Scores a checkpoint, each score beside its baseline: lm-eval, bits per byte, and recall."""
