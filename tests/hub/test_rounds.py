"""A round asks as much for a thousand instances as for one, and the Hub learns from it what has ended."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import event, insert

from tests.services.hub import wait_until
from visahub.flows.reconcile import Report, reconcile
from visahub.hub.together import Together
from visahub.hub.watch import Watch
from visahub.model.account import Account, Identity
from visahub.model.errors import Unavailable
from visahub.model.instance import Instance, Phase, Want
from visahub.model.launch import Condition, Look, Seen
from visahub.model.request import StartRequest
from visahub.store.admission import columns
from visahub.store.database import Store
from visahub.store.tables import instances
from visahub.testing.backends import FakeBackend
from visahub.testing.clock import Clock

from .conftest import Asking


class Listing(FakeBackend):
    """A place where what the test says runs; counts every call."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.running: set[str] = set()
        self.calls: list[str] = []

    async def look(self) -> Look:
        self.calls.append("look")
        return {attempt: Condition(seen=Seen.RUNNING) for attempt in self.running}

    async def stop(self, attempt: str, state: object) -> None:  # type: ignore[override]
        self.calls.append("stop")

    async def delete(self, attempt: str, state: object) -> None:  # type: ignore[override]
        self.calls.append("delete")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "visahub.sqlite"
    store = Store(f"sqlite:///{path}")
    store.upgrade()
    store.close()
    return path


@pytest.fixture
def store(tmp_path: Path, template: Path) -> Iterator[Store]:
    shutil.copy(template, tmp_path / "visahub.sqlite")
    made = Store(f"sqlite:///{tmp_path / 'visahub.sqlite'}")
    yield made
    made.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def fill(store: Store, clock: Clock, count: int) -> list[Instance]:
    """Lets so many instances be ready for an hour."""
    account = store.accounts.enter(Identity(issuer="test", subject="1", username="alice"), uid_min=20000)
    rows = [_ready(account, number, clock) for number in range(count)]
    with store.database.write() as connection:
        connection.execute(insert(instances), [columns(row) for row in rows])
    return rows


def _ready(account: Account, number: int, clock: Clock) -> Instance:
    then = clock() - timedelta(hours=1)
    return Instance(
        id=f"i{number}",
        owner_id=account.id,
        owner=account.username,
        server_name=f"i{number}",
        request=StartRequest(name="n"),
        want=Want.ON,
        phase=Phase.READY,
        attempt=f"a{number}",
        backend="fake",
        created=then,
        changed=then,
        address="http://127.0.0.1:1",
    )


@contextmanager
def counted(store: Store) -> Iterator[list[str]]:
    """Collects the questions that the database is asked."""
    asked: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("SELECT"):
            asked.append(statement)

    event.listen(store.database.engine, "before_cursor_execute", note)
    yield asked
    event.remove(store.database.engine, "before_cursor_execute", note)


async def test_a_round_of_a_thousand_asks_as_much_as_a_round_of_one(store: Store, clock: Clock) -> None:
    questions = {}
    for count in (1, 100, 1000):
        with store.database.write() as connection:
            connection.execute(instances.delete())
        backend = Listing()
        backend.running = {row.attempt for row in fill(store, clock, count)}
        with counted(store) as asked:
            report = await reconcile(store, {"fake": backend}, clock)
        assert report == Report()
        assert backend.calls == ["look"]
        questions[count] = len(asked)
    assert questions == {1: 1, 100: 1, 1000: 1}


async def test_polls_of_a_thousand_are_one_look_and_one_question_for_each_500(store: Store, clock: Clock) -> None:
    rows = fill(store, clock, 1000)
    backend = Listing()
    backend.running = {row.attempt for row in rows}
    watch, together = Watch({"fake": backend}, clock), Together(store.instances.by_attempts)

    async def poll(attempt: str) -> bool:
        row = await together.row(attempt)
        assert row is not None and row.attempt == attempt
        return (await watch.see(row.backend, attempt, since=row.changed)).condition is not None

    with counted(store) as asked:
        assert all(await asyncio.gather(*(poll(row.attempt) for row in rows)))
    assert backend.calls == ["look"] and len(asked) == 2


async def test_a_row_is_as_new_as_its_question(store: Store, clock: Clock) -> None:
    (row,) = fill(store, clock, 1)
    together = Together(store.instances.by_attempts)
    assert await together.row("nobody's") is None
    assert await together.row(row.attempt) == row
    store.instances.move(row.id, Phase.STOPPED, clock(), attempt=row.attempt, want=Want.OFF)
    seen = await together.row(row.attempt)
    assert seen is not None and seen.phase is Phase.STOPPED


async def test_a_database_that_is_away_is_told_to_everybody_and_not_remembered(store: Store, clock: Clock) -> None:
    (row,) = fill(store, clock, 1)
    is_away = True

    def read(attempts: Any) -> Any:
        if is_away:
            raise Unavailable("away")
        return store.instances.by_attempts(attempts)

    together = Together(read)
    told = await asyncio.gather(*(together.row(row.attempt) for _ in range(3)), return_exceptions=True)
    assert [type(one) for one in told] == [Unavailable] * 3
    is_away = False
    assert await together.row(row.attempt) == row


async def test_who_gives_up_does_not_take_the_answer_from_the_others(store: Store, clock: Clock) -> None:
    (row,) = fill(store, clock, 1)
    together = Together(store.instances.by_attempts)
    first = asyncio.create_task(together.row(row.attempt))
    await asyncio.sleep(0)
    second = asyncio.create_task(together.row(row.attempt))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == row


@pytest.mark.services
def test_the_hub_forgets_a_server_that_has_ended_within_a_round(asking: Asking) -> None:
    """Its own polls come minutes apart."""
    server, other = asking.started(), asking.started()
    pid = asking.visit(server)["pid"]
    os.kill(pid, signal.SIGKILL)

    def is_told() -> bool:
        asking.hub.round()
        seen = asking.hub.server("alice", server)
        return seen is not None and seen["stopped"] and not seen["pending"]

    wait_until(is_told, "the Hub knows that the server has ended", seconds=60)
    row = asking.row(server)
    assert row is not None and row.phase in {Phase.STOPPED, Phase.ERROR} and row.want is Want.OFF
    # Its route is gone, so that its address leads to the Hub; the other one goes on.
    assert httpx.get(f"{asking.hub.url}/user/alice/{server}/api").status_code != 200
    asking.visit(other)
