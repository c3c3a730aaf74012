"""The spawn page and the search with 100,000 experiments in SQLite, against the same pages with 100.

Two Hubs with a portal each, asked in turn by somebody who is logged in, over HTTP through the proxy.
"""

from __future__ import annotations

import random
import time
from contextlib import ExitStack, closing
from datetime import UTC, date, datetime, timedelta

import httpx

from tests.services.hub import wait_until
from visahub.model.experiment import Experiment, Member
from visahub.store.database import Store

from .figure import Figure
from .hubs import OurHub, running
from .runner import say

_MANY, _FEW = 100_000, 100
_USERS = [f"reader{number}" for number in range(4)]
_RUNS = 40
_TEXT_RUNS = 7
_INSTRUMENTS = 40
_PREFIX = "/services/visahub/"
# Name, address, and the goal; the last ones are only told: what a text costs depends on the text.
_PAGES = (
    ("spawn page", "new", 1.5),
    ("first search page", "experiments", 1.5),
    ("search, one instrument", "experiments?instrument=P07", 1.5),
    ("search, two years", "experiments?first_year=2019&last_year=2020", 1.5),
    ("search, only mine", "experiments?only_mine=1", 1.5),
    ("search, free text", "experiments?text=w123+w456", None),
    ("search, text that nothing has", "experiments?text=%25%25%25_NEAR(*", None),
)


def measure() -> list[Figure]:
    """Fills both catalogues, then asks for every page in turn."""
    with ExitStack() as stack:
        hubs = [stack.enter_context(running(lambda state: OurHub(state, users=_USERS))) for _ in range(2)]
        sessions: list[list[httpx.Client]] = []
        for hub, count in zip(hubs, (_MANY, _FEW), strict=True):
            hub.enter()
            wait_until(hub.has_portal, "the portal answers")
            began = time.monotonic()
            _fill(hub, count)
            say(f"catalogue: {count} experiments mirrored in {time.monotonic() - began:.1f} s")
            sessions.append([stack.enter_context(closing(hub.login(name))) for name in _USERS])
        return [_figure(sessions, *page) for page in _PAGES]


def _fill(hub: OurHub, count: int) -> None:
    # The same numbers in each run.
    chance = random.Random(7)
    store = Store(f"sqlite:///{hub.state / 'visahub.sqlite'}")
    store.experiments.replace_source("bench", (_experiment(chance, i, count) for i in range(count)), datetime.now(UTC))
    store.close()


def _experiment(chance: random.Random, number: int, count: int) -> Experiment:
    """Makes one of `count` over 15 years; the readers are in the teams of the same number in both catalogues."""
    start = date(2011, 1, 1) + timedelta(days=number * 5800 // count)
    words = [f"w{chance.randrange(1000):03}" for _ in range(40)]
    team = [Member(_USERS[number % 4], "Reader") if number * _FEW % count == 0 else Member("", words[3])]
    team += [Member(f"user{chance.randrange(5000)}", f"Name {word}") for word in words[:3]]
    return Experiment(
        id=f"e{number}",
        proposal=f"p{number:06}",
        title=" ".join(words[:8]),
        instrument=f"P{number % _INSTRUMENTS:02}",
        start=start,
        end=start + timedelta(days=3),
        public_at=start + timedelta(days=1100),
        team=tuple(team),
        path=f"/data/{number}",
        doi=f"10.5072/{number}",
        summary=" ".join(words[8:]),
    )


def _figure(sessions: list[list[httpx.Client]], name: str, address: str, goal: float | None) -> Figure:
    taken: list[list[float]] = [[], []]
    for run in range(_RUNS if goal else _TEXT_RUNS):
        for readers, seconds in zip(sessions, taken, strict=True):
            # Each account may search five times a second.
            seconds.append(_seconds(readers[run % len(readers)], address) * 1000)
        time.sleep(0.02)
    say(f"catalogue: {name}: {sorted(taken[0])[len(taken[0]) // 2]:.0f} ms")
    reference = f"the same page with {_FEW}; ours has {_MANY:,}"
    return Figure.of(f"{name}, p50", "ms", *taken, reference_is=reference, goal=goal)


def _seconds(session: httpx.Client, address: str) -> float:
    while True:
        began = time.monotonic()
        answer = session.get(_PREFIX + address, follow_redirects=True)
        if answer.status_code != httpx.codes.TOO_MANY_REQUESTS:
            break
        time.sleep(1)
    assert answer.status_code == httpx.codes.OK, f"{answer.status_code}: {answer.text[-500:]}"
    return time.monotonic() - began
