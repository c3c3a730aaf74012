"""How many experiments a question finds is counted in parts; what everybody sees alike is kept for a moment."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from visahub.model.account import Account, Role
from visahub.model.experiment import Member, Search
from visahub.store import search as searching
from visahub.store.database import Store
from visahub.testing.clock import Clock

from .test_experiments import experiment

ALICE = Account(id=1, username="alice", uid=1, gid=1)
BOB = Account(id=2, username="bob", uid=2, gid=2, instruments=frozenset({"P03"}))
ADMIN = Account(id=3, username="root", uid=3, gid=3, roles=frozenset({Role.ADMIN}))


def total(store: Store, clock: Clock, account: Account, **search: Any) -> int:
    return store.experiments.search(Search(**search), account, clock.today).total


def test_open_data_are_counted_once_for_everybody_and_what_is_closed_for_each(store: Store, clock: Clock) -> None:
    day = timedelta(days=1)
    found = [
        experiment("open", public_at=clock.today, instrument="P01", team=(Member("alice"),)),
        experiment("closed", public_at=clock.today + day, instrument="P01", team=(Member("alice"),)),
        experiment("undated", public_at=None, instrument="P03", team=()),
        experiment("others", public_at=clock.today + day, instrument="P02", team=()),
        experiment("old", public_at=clock.today - day, instrument="P03", team=()),
    ]
    store.experiments.replace_source("files", found, clock())
    assert [total(store, clock, who) for who in (ALICE, BOB, ADMIN)] == [3, 3, 5]
    assert [total(store, clock, who, instrument="P03") for who in (ALICE, BOB, ADMIN)] == [1, 2, 2]
    assert [total(store, clock, who, with_open_data=False) for who in (ALICE, BOB, ADMIN)] == [2, 2, 5]
    assert total(store, clock, ALICE, only_mine=True) == 2
    # Tomorrow is another question.
    tomorrow = store.experiments.search(Search(), ALICE, clock.today + day).total
    assert tomorrow == 4


def test_a_change_of_this_process_counts_at_once(store: Store, clock: Clock) -> None:
    some = [experiment(str(number), public_at=clock.today) for number in range(3)]
    store.experiments.replace_source("files", some, clock())
    assert total(store, clock, ALICE) == 3
    store.experiments.replace_source("files", some[:1], clock())
    assert total(store, clock, ALICE) == 1


def test_a_change_of_another_process_counts_within_half_a_minute(store: Store, other: Store, clock: Clock) -> None:
    now = 0.0
    store.experiments._totals = searching.Totals(lambda: now)
    some = [experiment(str(number), public_at=clock.today) for number in range(3)]
    other.experiments.replace_source("files", some, clock())
    assert total(store, clock, ALICE) == 3
    other.experiments.replace_source("files", some[:2], clock())
    now = 29.0
    page = store.experiments.search(Search(), ALICE, clock.today)
    assert (page.total, len(page.experiments)) == (3, 2)
    now = 30.0
    assert total(store, clock, ALICE) == 2


def test_what_is_kept_is_bounded(store: Store, clock: Clock) -> None:
    store.experiments.replace_source("files", [experiment("1", public_at=clock.today)], clock())
    for number in range(searching.Totals._most + 10):
        total(store, clock, ALICE, instrument=f"P{number}", page=2)
    assert len(store.experiments._totals._kept) <= searching.Totals._most


def test_plain_text_is_the_same_by_the_short_way_and_the_long_one() -> None:
    every = "".join(map(chr, range(128)))
    long_way = searching.plain(every + "é").removesuffix("e")
    assert searching.plain(every) == long_way.replace("\x00", "\ufffd")
    assert searching.plain("Gold\x00Film") == "gold\ufffdfilm"


def test_nothing_found_is_nothing_counted(store: Store, clock: Clock) -> None:
    store.experiments.replace_source("files", [replace(experiment("1"), public_at=clock.today)], clock())
    assert total(store, clock, ALICE, text="absent") == 0
    assert total(store, clock, ALICE, page=2) == 1
