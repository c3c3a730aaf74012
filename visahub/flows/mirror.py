"""From a source of experiments to the store; called by the portal's clock and by the command line."""

from __future__ import annotations

from datetime import datetime

from ..model.errors import Unavailable
from ..sources.base import Source
from ..store.database import Store
from ..store.experiments import Changes


def mirror(store: Store, source: Source, now: datetime) -> Changes:
    """Makes the store equal to a source, in one transaction; a source that cannot be read changes nothing.

    Raises Refused with the place in the source when a row is wrong, Unavailable when the source cannot be read.
    """
    found = list(source.experiments())
    if not found and store.experiments.count():
        # An export that broke off is more likely than a facility without experiments; all of them would be withdrawn.
        raise Unavailable(
            f"The source {source.id!r} gave no experiment at all, so the catalogue stays as it was. Check the source; "
            "to remove it for good, take it out of Visahub.sources.",
            retry_seconds=60,
        )
    return store.experiments.replace_source(source.id, found, now)
