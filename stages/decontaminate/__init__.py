"""Keeps documents that contain an evaluation item out of training."""
