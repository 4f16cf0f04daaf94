"""How the work of a stage is spread over processes, bounded and interrupted."""
