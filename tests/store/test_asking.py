"""Asking from an event loop: what is given up changes nothing, and what was committed is not denied."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from visahub.model.account import Account, Identity
from visahub.model.errors import Refused, Unavailable
from visahub.store.database import Store, ask
from visahub.testing.clock import Clock

from .test_admission import admit


class Gate:
    """Store calls that wait until a test lets them go on."""

    def __init__(self, store: Store, account_id: int) -> None:
        self.store = store
        self.account_id = account_id
        self.opened = threading.Event()
        self.ended = threading.Event()

    def late_change(self) -> None:
        try:
            self.opened.wait(20)
            self.store.preferences.put(self.account_id, {"late": 1})
        finally:
            self.ended.set()

    def change_and_wait(self) -> None:
        try:
            self.store.preferences.put(self.account_id, {"early": 1})
            self.opened.wait(20)
            self.store.preferences.put(self.account_id, {"late": 1})
        finally:
            self.ended.set()


async def test_an_answer_comes_back(store: Store, alice: Account) -> None:
    assert await ask(store.accounts.get, alice.id) == alice
    assert await ask(store.instances.events, "x", after=3, seconds=5) == []


async def test_errors_come_back(store: Store, alice: Account, clock: Clock) -> None:
    await ask(admit, store, alice, "one", clock)
    with pytest.raises(Refused):
        await ask(admit, store, alice, "one", clock)
    with pytest.raises(ZeroDivisionError):
        await ask(lambda: 1 / 0)


async def test_a_call_that_is_given_up_changes_nothing_later(store: Store, alice: Account) -> None:
    gate = Gate(store, alice.id)
    begun = time.monotonic()
    with pytest.raises(Unavailable, match="Nothing was changed"):
        await ask(gate.late_change, seconds=0.2)
    assert time.monotonic() - begun < 5
    gate.opened.set()
    await asyncio.to_thread(gate.ended.wait, 20)
    assert store.preferences.get(alice.id) == {}


async def test_a_call_that_had_changed_something_does_not_deny_it(store: Store, alice: Account) -> None:
    gate = Gate(store, alice.id)
    with pytest.raises(Unavailable, match="Reload the page"):
        await ask(gate.change_and_wait, seconds=1)
    gate.opened.set()
    await asyncio.to_thread(gate.ended.wait, 20)
    assert store.preferences.get(alice.id) == {"early": 1}


async def test_a_cancelled_call_changes_nothing_later(store: Store, alice: Account) -> None:
    gate = Gate(store, alice.id)
    task = asyncio.create_task(ask(gate.late_change, seconds=20))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.opened.set()
    await asyncio.to_thread(gate.ended.wait, 20)
    assert store.preferences.get(alice.id) == {}


async def test_a_locked_row_is_given_up_in_time_and_heals(store: Store, other: Store, alice: Account) -> None:
    """Another process that holds a lock does not hold the caller, and no thread hangs for ever."""
    with other.database.write() as connection:
        other.database.lock(connection, 7613402)
        begun = time.monotonic()
        with pytest.raises(Unavailable):
            await ask(store.accounts.enter, _identity(), uid_min=1)
        assert time.monotonic() - begun < 5
    assert (await ask(store.accounts.enter, _identity(), uid_min=1, seconds=10)).username == "bob"


def _identity() -> Identity:
    return Identity(issuer="test", subject="9", username="bob")
