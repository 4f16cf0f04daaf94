"""Tries the language model on a GPU: speed, bits, losses and memory (`make check-gpu`).

Runs where only PyTorch, what a usual PyTorch image has beside it, and the wheels of
`make gpu-wheels` are installed; so nothing here imports a test framework.
"""
