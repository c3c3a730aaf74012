"""Floor 2: the database. Only frozen dataclasses of `model/` cross its border."""
