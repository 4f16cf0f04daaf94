"""Keeps documents that hold an evaluation item out of training."""
