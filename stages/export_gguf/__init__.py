"""Writes a checkpoint as GGUF and proves in stock llama.cpp that it is the same model."""
