"""What a source of experiments implements; called by `flows/mirror.py`."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from traitlets import Unicode
from traitlets.config import LoggingConfigurable

from ..model.experiment import Experiment


class Source(LoggingConfigurable):
    """A catalogue of experiments outside."""

    id = Unicode("", help="The source's id: experiments that it no longer has are marked withdrawn under this id.").tag(
        config=True
    )

    def experiments(self, since: datetime | None = None) -> Iterable[Experiment]:
        """Gives all experiments, or those changed since a time where a source can tell.

        Raises Refused with the place of what is wrong in the source, Unavailable when it does not answer.
        """
        raise NotImplementedError
