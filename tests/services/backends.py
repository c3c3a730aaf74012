"""Backends for tests of the Hub: they run inside its process, and a test reaches them by files."""

from __future__ import annotations

import sys
from pathlib import Path

from visahub.backends.local import LocalBackend
from visahub.backends.local_accounts import Person, own_person
from visahub.model.errors import Unavailable
from visahub.model.launch import Launch, Look

TINY = [sys.executable, str(Path(__file__).with_name("tiny_server.py"))]


class TestedLocalBackend(LocalBackend):
    """The local backend with the Hub's own rights also for root, so that tests make no Unix accounts.

    While the file `away` lies in `data_dir`, it cannot be asked anything.
    """

    def _person(self, launch: Launch) -> Person:
        return own_person(launch.account, Path(self.home_root))

    def _ask(self) -> None:
        if (Path(self.data_dir) / "away").exists():
            raise Unavailable("The place does not answer. Nothing was changed; try again in a few seconds.")

    async def look(self) -> Look:
        self._ask()
        return await super().look()

    async def stop(self, attempt: str, state: object) -> None:  # type: ignore[override]
        self._ask()
        await super().stop(attempt, state)  # type: ignore[arg-type]
