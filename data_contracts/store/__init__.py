"""Where artifacts live: a local folder, or a bucket behind any fsspec URL."""
