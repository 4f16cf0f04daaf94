"""Direct preference optimization against a frozen reference."""
