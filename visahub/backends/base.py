"""What a backend implements, and nothing more; called by flows, for `hub/`."""

from __future__ import annotations

from collections.abc import AsyncIterator

from traitlets import Unicode
from traitlets.config import LoggingConfigurable

from ..model.instance import State
from ..model.launch import Launch, Look, Step
from ..model.offer import Hardware, Offer


class Backend(LoggingConfigurable):
    """A place where instances run.

    Every method may raise `Unavailable` when the place cannot be asked; that never means "gone". `deployment` is the
    tag that every resource carries, so that two visahubs in one place never touch each other's.
    """

    id = Unicode("", help="The backend's id, as `Hardware.backend` names it.").tag(config=True)
    deployment = Unicode("visahub", help="The tag of this deployment; set by `build.py` from `Visahub.deployment`.")

    def remarks(self) -> list[str]:
        """Says what an operator should know about this place as it is set up here; asks nothing outside."""
        return []

    def problems(self) -> list[str]:
        """Says what keeps instances from starting in this place, each with its remedy; asks nothing outside."""
        return []

    async def offers(self, hardware: tuple[Hardware, ...]) -> list[Offer]:
        """Says for each hardware of this backend whether it is free now."""
        raise NotImplementedError

    def start(self, launch: Launch) -> AsyncIterator[Step]:
        """Starts an instance; every step is saved before the next begins; the last one carries the address.

        When called again with an attempt that already exists outside, it adopts what is there. It cleans up nothing:
        its caller calls `stop` after a failure. A cancellation means that the process ends; the next one adopts.
        """
        raise NotImplementedError

    async def look(self) -> Look:
        """Answers ONE question for all instances of this deployment, by attempt; absent means gone."""
        raise NotImplementedError

    async def stop(self, attempt: str, state: State) -> None:
        """Stops and keeps what can be kept; right for a half-built or absent instance. Returns when it is stopped."""
        raise NotImplementedError

    async def delete(self, attempt: str, state: State) -> None:
        """Deletes for ever; right when called twice or for something that never was."""
        raise NotImplementedError
