"""Health, metrics, the clock and the database in trouble."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from visahub.model.errors import Unavailable
from visahub.portal.clock import Clock
from visahub.portal.health import Health
from visahub.portal.limits import Buckets

from .conftest import Site

pytestmark = pytest.mark.asyncio(loop_scope="module")


def away(*_: Any, **__: Any) -> None:
    raise Unavailable("The database of visahub does not answer. Nothing was changed; try again in a few seconds.")


async def test_health_asks_the_database(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Health, "_last", (float("-inf"), ""))
    async with site.nobody() as client:
        answer = await client.get("health")
        assert (answer.status_code, answer.json()["status"]) == (200, "ok")
        monkeypatch.setattr(Health, "_last", (float("-inf"), ""))
        monkeypatch.setattr(site.store, "check", away)
        answer = await client.get("health")
        assert answer.status_code == 503
        assert "database" in answer.json()["message"]
    monkeypatch.setattr(Health, "_last", (float("-inf"), ""))


async def test_database_away_is_said(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    browser = await site.browser()
    monkeypatch.setattr(site.store.accounts, "named", away)
    answer = await browser.get("")
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert "database of visahub does not answer" in answer.text
    assert (await browser.get("api/instances")).json()["rule"] == "unavailable"


async def test_defect_gives_a_reference_and_no_traceback(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    browser = await site.browser()

    def broken(*_: Any) -> None:
        raise RuntimeError("secret of the house")

    monkeypatch.setattr(site.store.instances, "of_owner", broken)
    answer = await browser.get("")
    assert answer.status_code == 500
    assert "reference" in answer.text
    assert "secret of the house" not in answer.text


async def test_metrics_need_their_scope(site: Site) -> None:
    async with site.client("alice") as client:
        assert (await client.get("metrics")).status_code == 403
    async with site.client("prometheus", {"read:metrics"}, kind="service") as client:
        answer = await client.get("metrics")
        assert answer.status_code == 200
        assert "visahub_request_duration_seconds_bucket" in answer.text
        assert "visahub_streams" in answer.text
        assert (await client.get("api/instances")).status_code == 403


async def test_searches_are_limited_for_each_account(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site.portal.searches, "_burst", 3)
    monkeypatch.setattr(site.portal.searches, "_per_second", 0.001)
    monkeypatch.setattr(site.portal.searches, "_left", {})
    async with site.client("alice") as client:
        states = [(await client.get("api/experiments")).status_code for _ in range(5)]
        assert states == [200, 200, 200, 429, 429]
    async with site.client("bob") as client:
        assert (await client.get("api/experiments")).status_code == 200


async def test_bucket_fills_again() -> None:
    now = [0.0]
    buckets = Buckets(burst=2, per_second=1, clock=lambda: now[0])
    buckets.take(1)
    buckets.take(1)
    with pytest.raises(Exception, match="very often"):
        buckets.take(1)
    now[0] = 1.0
    buckets.take(1)


class _Hub:
    def __init__(self) -> None:
        self.rounds = 0

    async def round(self) -> dict[str, Any]:
        self.rounds += 1
        if self.rounds == 1:
            raise Unavailable("The Hub does not answer.")
        if self.rounds == 2:
            raise ValueError("a defect")
        return {"unknown": ["stray1"], "unavailable": ["far"]}


class _Source:
    id = "broken"

    def experiments(self, since: datetime | None = None) -> list[Any]:
        raise Unavailable("The catalogue does not answer.")


async def test_failed_round_does_not_end_the_clock(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    hub = _Hub()
    sources: Any = [_Source()]
    clock = Clock(hub, site.store, sources, 60, lambda: datetime.now(UTC), round_seconds=0.01)  # type: ignore[arg-type]
    clock.start()
    async with asyncio.timeout(10):
        while hub.rounds < 4:  # noqa: ASYNC110 - the clock has no event for this
            await asyncio.sleep(0.01)
    await clock.close()
    assert len([text for text in caplog.messages if "stray1" in text]) == 1, "an operator is told, once"
    assert len([text for text in caplog.messages if "nothing of it is changed: far" in text]) == 1
    ended = hub.rounds
    await asyncio.sleep(0.05)
    assert hub.rounds == ended


async def test_round_is_asked_with_the_portals_token(site: Site) -> None:
    before = site.hub.rounds
    await site.portal.hub.round()
    assert site.hub.rounds == before + 1
