"""Checks the language model on a GPU: speed, bits, losses and memory (`make check-gpu`).

It needs only the packages of a usual PyTorch image and the wheels of `make gpu-wheels`, so nothing
here imports a test framework.
"""
