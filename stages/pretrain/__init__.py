"""Trains a language model from nothing on token shards."""
