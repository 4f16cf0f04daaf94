"""Removes duplicates: keeps one representative of each cluster and holds out whole families."""
