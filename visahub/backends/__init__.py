"""Floor 2: where instances run."""
