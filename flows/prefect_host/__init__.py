"""The Prefect server and worker of a folder, for its owner alone, and the pages of its runs."""
