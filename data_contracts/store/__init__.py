"""The store: immutable artifacts with manifests, and refs that say which artifact a name points at. On a disk or at any fsspec URL."""
