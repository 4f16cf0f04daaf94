"""Writes what a person reads about a model: model card, data card, lineage, pictures, all from manifests and tables."""
