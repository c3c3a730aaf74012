"""A login that the Hub has confirmed is believed while the Hub is away, for a while, and no other."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tornado.web import HTTPError

from visahub.singleuser import patience
from visahub.singleuser.patience import PATIENCE_SECONDS, Patience

ALICE = {"name": "alice"}


class Hub:
    """What the Hub answers, and what time it is."""

    def __init__(self) -> None:
        self.answer: Any = ALICE
        self.asked = 0
        self.now = 1000.0
        self.patience = Patience(self.check, lambda: self.now)

    async def check(self, url: str, api_token: str, cache_key: str | None, use_cache: bool) -> Any:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.answer == "hangs":
            await asyncio.sleep(600)
        return self.answer

    async def ask(self, key: str = "alice's") -> Any:
        return await self.patience("http://hub/user", "token", cache_key=key)


async def test_who_was_let_in_stays_in_while_the_hub_is_away() -> None:
    hub = Hub()
    assert await hub.ask() == ALICE
    hub.answer = HTTPError(500, "Failed to connect to Hub API")
    assert await hub.ask() == ALICE
    hub.now += PATIENCE_SECONDS - 1
    assert await hub.ask() == ALICE
    hub.now += 2
    with pytest.raises(HTTPError) as caught:
        await hub.ask()
    assert caught.value.status_code == 503


async def test_nobody_new_is_let_in_without_the_hub() -> None:
    hub = Hub()
    assert await hub.ask() == ALICE
    hub.answer = HTTPError(502, "Failed to check authorization")
    with pytest.raises(HTTPError) as caught:
        await hub.ask("another's")
    assert caught.value.status_code == 503
    assert "nobody new" in str(caught.value.log_message)


async def test_a_login_that_the_hub_has_revoked_is_not_remembered() -> None:
    hub = Hub()
    assert await hub.ask() == ALICE
    hub.answer = None
    assert await hub.ask() is None
    hub.answer = HTTPError(500)
    with pytest.raises(HTTPError):
        await hub.ask()


async def test_a_hub_that_hangs_does_not_hold_who_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "_ANSWER_SECONDS", 0.05)
    hub = Hub()
    assert await hub.ask() == ALICE
    hub.answer = "hangs"
    assert await hub.ask() == ALICE
    # The next ones do not wait at all.
    asked = hub.asked
    assert [await hub.ask() for _ in range(5)] == [ALICE] * 5
    assert hub.asked == asked
    hub.now += 3
    hub.answer = ALICE | {"admin": True}
    assert await hub.ask() == hub.answer


async def test_its_memory_is_bounded() -> None:
    hub = Hub()
    for number in range(1100):
        await hub.ask(f"{number}")
    assert len(hub.patience._known) == 1000
