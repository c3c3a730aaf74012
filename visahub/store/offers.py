"""The last word of each backend on what is free, so that no page asks a backend; written by the round in `hub/`."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import delete, insert, select

from ..model.offer import Offer
from .engine import Database
from .tables import offers


class Offers:
    """A snapshot for each hardware."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def save(self, backend: str, found: Iterable[Offer], now: datetime) -> None:
        """Replaces a backend's snapshot."""
        rows = [
            {
                "hardware_id": offer.hardware.id,
                "backend": backend,
                "is_free": offer.is_free,
                "sentence": offer.sentence,
                "at": now,
            }
            for offer in found
        ]
        with self._database.write() as connection:
            connection.execute(delete(offers).where(offers.c.backend == backend))
            if rows:
                connection.execute(insert(offers), rows)

    def all(self) -> dict[str, tuple[bool | None, str, datetime]]:
        """Gives, for each hardware id, whether it is free, the sentence, and when that was asked."""
        with self._database.read() as connection:
            return {row.hardware_id: (row.is_free, row.sentence, row.at) for row in connection.execute(select(offers))}
