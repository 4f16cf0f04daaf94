"""The Prefect server and worker of a home, private to its owner, and the pages of flow runs."""
