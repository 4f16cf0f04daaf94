"""Turns documents into shuffled shards of token ids."""
