"""Instruction tuning: a base checkpoint learns to answer in the chat format, and to stop."""
