"""Alembic's scripts; run by `Store.upgrade`."""
