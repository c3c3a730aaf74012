"""What all spawners of the Hub share: the parts, the watch, and the questions that are asked of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from traitlets.config import Config

from .. import build
from ..flows import launch, reconcile
from ..flows.launch import Admission
from ..flows.reconcile import Action
from ..flows.steady import SteadyClock
from ..model.account import Account
from ..model.errors import Refused, Unavailable
from ..model.instance import Event, Instance, Phase
from ..model.launch import Condition
from ..store.database import ask
from . import metrics
from .silence import Silence
from .supervisor import Supervisor
from .together import Together
from .watch import Watch

_ANY_TIME = datetime.min.replace(tzinfo=UTC)
# What `decide` says of an instance that is not there any more.
_OVER = {Action.LOST, Action.GIVE_UP}
# How often something is tried again that the database does not answer.
_AGAIN_SECONDS = 1.0


def _wall() -> datetime:
    return datetime.now(UTC)


# By this one all deadlines are made and judged in the Hub.
clock = SteadyClock(_wall, time.monotonic)


def now() -> datetime:
    return clock()


class Desk:
    """The Hub's one set of parts. Its methods without `async` ask the database: call them by `ask`, in a thread."""

    _one: ClassVar[Desk | None] = None

    def __init__(self, parts: build.Parts) -> None:
        self.parts = parts
        metrics.expect(parts.backends)
        self.watch = Watch(parts.backends, now)
        self.rows = Together(parts.store.instances.by_attempts)
        self.silence = Silence(parts.store, now)
        self.supervisor = Supervisor()
        self._began = now()
        self._starts: set[asyncio.Task[str]] = set()

    @classmethod
    def of(cls, config: Config) -> Desk:
        """Gives the desk of this process."""
        if cls._one is None:
            cls._one = cls(build.parts(config))
        return cls._one

    def keep(self, start: Coroutine[Any, Any, str]) -> asyncio.Task[str]:
        """Runs a start that outlives the request which began it; the Hub's end cancels it, and the next Hub goes on."""
        task = asyncio.create_task(start)
        self._starts.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, start: asyncio.Task[str]) -> None:
        """Lets go of a start that is over; its row says how it ended, also when nobody waits for it any more."""
        self._starts.discard(start)
        if not start.cancelled():
            start.exception()

    async def until_listed(self, row: Instance) -> None:
        """Waits until what an interrupted start may have made can be seen, so that no second one is made beside it.

        What is there is gone on with at once. What is not may have been asked for by the last breath of the Hub before
        this one, and lists may be late by the grace time.
        """
        answer = await self.watch.see(row.backend, row.attempt, since=now())
        if answer.condition is None:
            listed = max(row.changed, self._began) + timedelta(seconds=self.parts.settings.grace_seconds)
            await asyncio.sleep((listed - now()).total_seconds())

    async def row_at_last(self, username: str, server_name: str) -> Instance | None:
        """Gives the row behind a Hub server, however long the database is away."""
        return await self._at_last(lambda: ask(self.row, username, server_name))

    async def attempt_at_last(self, attempt: str) -> Instance | None:
        """Gives the row that carries an attempt, however long the database is away; for a thousand at once."""
        return await self._at_last(lambda: self.rows.row(attempt))

    async def _at_last(self, question: Callable[[], Awaitable[Instance | None]]) -> Instance | None:
        while True:
            try:
                return await question()
            except Unavailable:
                await asyncio.sleep(_AGAIN_SECONDS)

    def account(self, username: str) -> Account:
        """Gives the account of a Hub user; raises Refused when nobody has logged in under that name."""
        account = self.parts.store.accounts.named(username)
        if account is None:
            raise Refused(
                f"There is no account for {username!r} yet. Log out, log in again, and start once more.",
                rule="no-account",
                status=403,
            )
        return account

    def row(self, username: str, server_name: str) -> Instance | None:
        """Gives the row behind a Hub server."""
        account = self.parts.store.accounts.named(username)
        return self.parts.store.instances.named(account.id, server_name) if account else None

    def again(self, row: Instance) -> Admission:
        """Admits an interrupted start again, with its attempt and by the rules of today; else the row says why not."""
        try:
            account = self.account(row.owner)
            choice = launch.choose(self.parts.store, self.parts.menu, account, row.request, now().date())
        except Refused as error:
            # What may already run of it is a stray from now on, and ended by the next round.
            self.parts.store.instances.move(row.id, Phase.ERROR, now(), attempt=row.attempt, sentence=error.sentence)
            raise
        return Admission(
            instance=row,
            account=account,
            experiments=choice.experiments,
            environment=choice.environment,
            hardware=choice.hardware,
        )

    def steps(self, row: Instance, after: int) -> list[Event]:
        """Gives the steps of the row's attempt after an event."""
        events = self.parts.store.instances.events(row.id, after)
        return [event for event in events if event.attempt == row.attempt and event.kind in {"step", "ready", "error"}]

    async def poll(self, row: Instance) -> int | None:
        """Tells whether a ready instance is still there: None for yes and for "cannot tell", 0 for no."""
        answer = await self.watch.see(row.backend, row.attempt, since=row.changed)
        if not answer.known:
            return None
        action = reconcile.decide(row, answer.condition, now(), self.parts.settings.grace_seconds)
        return 0 if action in _OVER else None

    async def poll_without_row(self, attempt: str) -> int | None:
        """Tells the same of an attempt that no row carries now: it is over, unless our database is an older copy."""
        places = await self._places_without_row(attempt)
        return None if any(condition is None or condition.is_live for condition in places.values()) else 0

    async def end_without_row(self, attempt: str) -> None:
        """Stops what the Hub knows and no row does, because its owner asks for it."""
        for backend_id, condition in (await self._places_without_row(attempt)).items():
            if condition is not None and condition.is_live:
                await self.parts.backends[backend_id].stop(attempt, condition.state)

    async def _places_without_row(self, attempt: str) -> dict[str, Condition | None]:
        """Gives where an attempt that no row ever had is; None for a place that cannot be asked."""
        if not attempt or attempt in await ask(self.parts.store.instances.known_attempts, [attempt]):
            return {}
        answers = {key: await self.watch.see(key, attempt, since=_ANY_TIME) for key in self.parts.backends}
        return {
            key: answer.condition if answer.known else None
            for key, answer in answers.items()
            if answer.condition is not None or not answer.known
        }
