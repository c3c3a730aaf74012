"""Who may read, choose and take what; the sentences say by which rule, and what would change it."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visahub.model.account import Account, Role
from visahub.model.experiment import Experiment, Member
from visahub.model.policy import Restriction, may_choose, may_read, may_take, spoken

TODAY = date(2026, 11, 21)
PAST, FUTURE = date(2022, 1, 1), date(2029, 5, 3)


def account(username: str = "alice", **changes: Any) -> Account:
    return Account(**{"id": 1, "username": username, "uid": 20000, "gid": 20000} | changes)


def experiment(**changes: Any) -> Experiment:
    plain = {"id": "1", "proposal": "p1", "title": "t", "instrument": "P03", "start": PAST, "end": PAST}
    return Experiment(**plain | changes)


TEAM = (Member("alice"),)


@pytest.mark.parametrize(
    ("who", "what", "allowed", "rule"),
    [
        (account(), experiment(team=TEAM), True, "team"),
        (account(), experiment(team=TEAM, public_at=FUTURE), True, "team"),
        (account(), experiment(team=TEAM, withdrawn=True), False, "withdrawn"),
        (account(roles=frozenset({Role.ADMIN})), experiment(withdrawn=True), False, "withdrawn"),
        (account("bob"), experiment(team=TEAM), False, "not-in-team"),
        (account("bob"), experiment(team=TEAM, public_at=FUTURE), False, "embargo"),
        (account("bob"), experiment(team=TEAM, public_at=TODAY), True, "open-data"),
        (account("bob"), experiment(team=TEAM, public_at=TODAY + timedelta(days=1)), False, "embargo"),
        (account("bob", roles=frozenset({Role.ADMIN})), experiment(public_at=FUTURE), True, "admin"),
        (account("bob", instruments=frozenset({"P03"})), experiment(public_at=FUTURE), True, "instrument-scientist"),
        (account("bob", instruments=frozenset({"P04"})), experiment(public_at=FUTURE), False, "embargo"),
        (account("bob", roles=frozenset({Role.STAFF, Role.SUPPORT})), experiment(), False, "not-in-team"),
    ],
)
def test_who_may_read(who: Account, what: Experiment, allowed: bool, rule: str) -> None:
    decision = may_read(who, what, TODAY)
    assert (decision.allowed, decision.rule) == (allowed, rule)
    assert decision.sentence.endswith(".")


def test_an_embargo_says_until_when_and_what_to_do() -> None:
    decision = may_read(account("bob"), experiment(team=TEAM, public_at=FUTURE), TODAY)
    assert decision.sentence == (
        "Your access to p1 is under embargo until 3 May 2029. "
        "Ask its principal investigator to add you to the team, or choose another experiment."
    )
    assert decision.changes_on == FUTURE


@pytest.mark.parametrize("dates", [{"start": None}, {"end": None}, {"start": None, "end": None}])
def test_without_dates_it_is_read_but_not_chosen(dates: dict[str, None]) -> None:
    what = experiment(team=TEAM, **dates)
    assert may_read(account(), what, TODAY).allowed
    decision = may_choose(account(), what, TODAY)
    assert (decision.allowed, decision.rule) == (False, "no-dates")
    assert may_choose(account("bob"), what, TODAY).rule == "not-in-team"


dates = st.none() | st.dates(date(2020, 1, 1), date(2032, 1, 1))
names = st.sampled_from(["alice", "bob", "carol"])
instruments = st.sampled_from(["P03", "P04"])
experiments = st.builds(
    experiment,
    start=dates,
    end=dates,
    public_at=dates,
    instrument=instruments,
    withdrawn=st.booleans(),
    team=st.lists(names.map(Member), max_size=2, unique=True).map(tuple),
)
accounts = st.builds(
    account,
    username=names,
    roles=st.frozensets(st.sampled_from(Role), max_size=2),
    instruments=st.frozensets(instruments),
)


@given(accounts, experiments, st.dates(date(2020, 1, 1), date(2032, 1, 1)))
def test_choosing_needs_reading_and_withdrawn_is_for_nobody(who: Account, what: Experiment, today: date) -> None:
    read, choose = may_read(who, what, today), may_choose(who, what, today)
    assert read.allowed or not choose.allowed
    assert not (what.withdrawn and read.allowed)
    if read.rule == "embargo":
        assert read.changes_on is not None
        assert may_read(who, what, read.changes_on).allowed
        assert not may_read(who, what, read.changes_on - timedelta(days=1)).allowed


@given(accounts, experiments, st.dates(date(2020, 1, 1), date(2031, 1, 1)), st.integers(0, 300))
def test_time_alone_never_takes_access_away(who: Account, what: Experiment, today: date, days: int) -> None:
    if may_read(who, what, today).allowed:
        assert may_read(who, what, today + timedelta(days=days)).allowed


P03_ONLY = Restriction(instruments=frozenset({"P03"}))
GPU_OR_STAFF = Restriction(groups=frozenset({"gpu"}), roles=frozenset({"staff"}))


@pytest.mark.parametrize(
    ("who", "what", "chosen", "allowed", "rule"),
    [
        (account(), Restriction(), (), True, "everybody"),
        (account(), P03_ONLY, (), False, "restricted"),
        (account(), P03_ONLY, (experiment(),), True, "experiment"),
        (account(), P03_ONLY, (experiment(instrument="P04"), experiment()), True, "experiment"),
        (account(instruments=frozenset({"P03"})), P03_ONLY, (), True, "instrument-scientist"),
        (account(roles=frozenset({Role.ADMIN})), P03_ONLY, (), True, "admin"),
        (account(roles=frozenset({Role.STAFF})), Restriction(roles=frozenset({"staff"})), (), True, "role"),
        (account(groups=frozenset({"gpu"})), Restriction(groups=frozenset({"gpu"})), (), True, "group"),
        # One match is enough: an OR, not an AND.
        (account(groups=frozenset({"gpu"})), GPU_OR_STAFF, (), True, "group"),
        (account(groups=frozenset({"x"})), GPU_OR_STAFF, (), False, "restricted"),
    ],
)
def test_who_may_take(
    who: Account, what: Restriction, chosen: tuple[Experiment, ...], allowed: bool, rule: str
) -> None:
    decision = may_take(who, what, chosen)
    assert (decision.allowed, decision.rule) == (allowed, rule)


def test_a_refusal_says_how_one_gets_it() -> None:
    both = Restriction(groups=frozenset({"gpu"}), instruments=frozenset({"P04", "P03"}))
    assert may_take(account(), both, ()).sentence == (
        "Only for experiments at P03, P04 or the group gpu. Ask your local contact if you need it."
    )
    assert may_take(account(), Restriction(groups=frozenset({"gpu"}), sentence="Ask Bo."), ()).sentence == "Ask Bo."


def test_dates_as_people_say_them() -> None:
    assert spoken(date(2027, 5, 3)) == "3 May 2027"
