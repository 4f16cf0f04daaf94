"""Spreads the work of a stage over processes, bounds their memory and handles interruptions."""
