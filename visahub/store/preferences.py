"""What an account prefers, kept on the server so that it follows the person to another computer (visa.md B6)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import insert, select, update

from ..model.errors import Refused
from .engine import Database
from .tables import accounts, preferences

_LARGEST = 64 * 1024


class Preferences:
    """One JSON object for each account; "last" holds the options of the last admitted start."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, account_id: int) -> dict[str, Any]:
        with self._database.read() as connection:
            values = connection.scalar(select(preferences.c["values"]).where(preferences.c.account_id == account_id))
        return dict(values or {})

    def put(self, account_id: int, changes: Mapping[str, Any]) -> None:
        """Adds or replaces the given preferences and keeps the others; None takes one away.

        Raises Refused ("preferences") when all together take more than 64 KiB.
        """
        mine = preferences.c.account_id == account_id
        with self._database.write() as connection:
            # On PostgreSQL this orders two pages of one account; SQLite has one writer anyway.
            connection.execute(select(accounts.c.id).where(accounts.c.id == account_id).with_for_update())
            old = connection.scalar(select(preferences.c["values"]).where(mine))
            new = {key: value for key, value in (dict(old or {}) | dict(changes)).items() if value is not None}
            if len(json.dumps(new)) > _LARGEST:
                raise Refused("There is no room for more preferences. Save fewer.", rule="preferences", status=413)
            if old is None:
                connection.execute(insert(preferences).values({"account_id": account_id, "values": new}))
            elif new != old:
                connection.execute(update(preferences).where(mine).values({"values": new}))
