"""Floor 2: where experiments come from."""
