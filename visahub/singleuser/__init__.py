"""Annex A: runs inside the instance with the user's rights. Imports `model/` only and holds no secret of the Hub."""
