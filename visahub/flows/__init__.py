"""Floor 3: one story per file, from start to end, in plain functions."""
