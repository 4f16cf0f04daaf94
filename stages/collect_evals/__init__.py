"""Makes multiple-choice items of held-out pages and benchmark files."""
