"""The answers of `visahub privacy`: what is stored about a person, and what was erased; called by `cli.py`."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from . import build
from .flows import privacy
from .model.errors import Refused
from .store.database import Store


def export(store: Store, name: str) -> str:
    """Gives all that is stored about an account as JSON; raises Refused when there is none."""
    account = store.accounts.named(name)
    if account is None:
        raise Refused(f"There is no account {name!a}.", rule="no-account", status=404)
    return json.dumps(privacy.export(store, account, datetime.now(UTC)), indent=1)


def erase(parts: build.Parts, name: str, *, is_dry: bool) -> str:
    """Erases a person, or only counts, and says what is left to do; raises Refused while instances exist."""
    counts = privacy.erase(parts.store, name, is_dry=is_dry)
    rows = ", ".join(f"{number} of {table}" for table, number in counts.items())
    if is_dry:
        return f"Would erase {name} from these rows: {rows}. Nothing was changed; say --really to do it."
    return (
        f"Erased {name} from these rows: {rows}. User name and uid stay as they are, so that neither is given again.\n"
        "Left to do:\n"
        "- The Hub's user with its logins and tokens: as an administrator of the Hub,\n"
        f"  curl -X DELETE -H 'Authorization: token TOKEN' https://HUB/hub/api/users/{name}\n"
        "- The home directory, and whoever tells the Hub who may log in: a later login is refused, the name is taken.\n"
        "- Copies of the databases end with their own time; after restoring one, erase again."
    )
