"""Turns raw pages into clean text, and keeps what it rejects together with the reason."""
