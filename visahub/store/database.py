"""The store as the rest of visahub sees it: `Store` with one attribute for each subject, and `ask`."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from ..model.errors import Unavailable
from . import copies
from .accounts import Accounts
from .asking import ask
from .engine import MISSING, Database, is_lost, is_trouble
from .experiments import Experiments
from .instances import Instances
from .leases import Leases
from .offers import Offers
from .personal import Personal
from .preferences import Preferences
from .strays import Strays

__all__ = ["Store", "ask", "is_lost", "is_trouble"]

_MIGRATIONS = Path(__file__).parent / "migrations"
# Below this the next change may fail half-way through a day; SQLite's journal alone can take several MB.
_ROOM_BYTES = 20 * 2**20
_NEWER = (
    "The database was written by a newer visahub. Install that version again, or restore the copy from before its "
    "upgrade. Nothing was changed."
)


class Store:
    """The whole store. Its methods block and may be called from any thread; from an event loop use `ask`.

    Each method is one transaction or none. All raise Unavailable when the database does not answer.
    """

    def __init__(self, url: str) -> None:
        """Opens nothing yet. Raises ValueError with a sentence for an address that cannot be used."""
        self.database = Database(url)
        self.accounts = Accounts(self.database)
        self.experiments = Experiments(self.database)
        self.instances = Instances(self.database)
        self.preferences = Preferences(self.database)
        self.offers = Offers(self.database)
        self.personal = Personal(self.database)
        self.leases = Leases(self.database)
        self.strays = Strays(self.database)

    def upgrade(self) -> Path | None:
        """Makes the tables or brings them up to date, in one transaction; right when called twice or by two at once.

        Before the tables of a file change it is copied beside itself; gives the copy.
        """
        self.database.make_file()
        with self.database.read() as connection:
            old = _check_known(connection)
        copy = copies.before_upgrade(self.database, old) if old and old != _revisions()[0] else None
        with self.database.upgrade() as connection:
            _check_known(connection)
            config = _config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
        return copy

    def check(self) -> None:
        """Raises Unavailable with the remedy when the database is away, full, or its tables do not fit this version."""
        path = self.database.path
        if path is not None and not path.exists():
            raise Unavailable(MISSING)
        with self.database.read() as connection:
            if _check_known(connection) != _revisions()[0]:
                raise Unavailable(MISSING)
        if path is not None and shutil.disk_usage(path.parent).free < _ROOM_BYTES:
            raise Unavailable("The disk of visahub's database is nearly full. Ask the operators to make room.")

    def close(self) -> None:
        """Closes all connections; a later call opens new ones."""
        self.database.engine.dispose()


def _check_known(connection: Connection) -> str | None:
    """Gives the revision of the tables, None when there are none; raises Unavailable when a newer visahub made them."""
    current = MigrationContext.configure(connection).get_current_revision()
    if current is not None and current not in _revisions():
        raise Unavailable(_NEWER)
    return current


@cache
def _revisions() -> tuple[str, ...]:
    """Gives all revisions that this version knows, newest first."""
    return tuple(script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions())


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
