"""Exact and near duplicates out, one representative of each cluster kept, held-out split by family."""
