"""When things run: the pipeline, single stages, schedules, and the command line."""
