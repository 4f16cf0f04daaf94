"""Learns a tokenizer from the training documents and measures it."""
