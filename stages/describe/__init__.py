"""Writes the model card, the data card, the lineage and pictures from manifests and tables."""
