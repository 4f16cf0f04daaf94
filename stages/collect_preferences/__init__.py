"""Pairs of a human answer and the model's own, and the user's own pairs."""
