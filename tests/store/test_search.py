"""The search says in SQL what `model.policy.may_read` says in Python, and finds what people type."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from visahub.model.account import Account, Role
from visahub.model.experiment import Experiment, Member, Search, Sort
from visahub.model.policy import may_read
from visahub.store.database import Store
from visahub.store.search import plain, words
from visahub.testing.clock import START, Clock

from .test_experiments import experiment

TODAY = START.date()
DAYS = st.sampled_from([TODAY + timedelta(days=days) for days in (-800, -1, 0, 1, 400)])
NAMES = st.sampled_from(["alice", "bob", "ali", "Alice", ""])
INSTRUMENTS = st.sampled_from(["P03", "p03", "", "NanoMAX é"])
TEXTS = st.text("aAäÄßsS%_\\ éİi\x00", max_size=6)

EXPERIMENTS = st.lists(
    st.builds(
        Experiment,
        id=st.sampled_from(["1", "2", "3", "4", "5", "6"]),
        proposal=TEXTS,
        title=TEXTS,
        instrument=INSTRUMENTS,
        start=st.none() | DAYS,
        end=st.none() | DAYS,
        public_at=st.none() | DAYS,
        team=st.lists(st.builds(Member, NAMES, TEXTS), max_size=3).map(tuple),
        withdrawn=st.booleans(),
    ),
    unique_by=lambda one: one.id,
    max_size=6,
)
ACCOUNTS = st.builds(
    Account,
    id=st.just(1),
    username=NAMES,
    uid=st.just(1),
    gid=st.just(1),
    roles=st.frozensets(st.sampled_from(Role), max_size=2),
    instruments=st.frozensets(INSTRUMENTS, max_size=2),
)
SEARCHES = st.builds(
    Search,
    text=TEXTS,
    instrument=INSTRUMENTS,
    first_year=st.none() | st.sampled_from([2024, 2026, 2027]),
    last_year=st.none() | st.sampled_from([2024, 2026, 2027]),
    with_open_data=st.booleans(),
    only_mine=st.booleans(),
    sort=st.sampled_from(Sort),
    page_size=st.just(5),
)


def expected(search: Search, account: Account, found: list[Experiment]) -> set[str]:
    """What a search answers, said in Python with the rule of the model."""
    return {one.id for one in found if _is_wanted(search, account, one)}


def _is_wanted(search: Search, account: Account, one: Experiment) -> bool:
    decision = may_read(account, one, TODAY)
    parts = [one.proposal, one.title, one.instrument, *(f"{who.name} {who.username}" for who in one.team)]
    text = plain("\n".join(parts))
    return (
        decision.allowed
        and (search.with_open_data or decision.rule != "open-data")
        and (not search.only_mine or one.has_member(account.username))
        and (not search.instrument or one.instrument == search.instrument)
        and (search.first_year is None or (one.start is not None and one.start.year >= search.first_year))
        and (search.last_year is None or (one.start is not None and one.start.year <= search.last_year))
        and all(word in text for word in plain(search.text).split())
    )


def _all_pages(store: Store, search: Search, account: Account) -> Iterator[Experiment]:
    pages = store.experiments.search(search, account, TODAY).pages
    for page in range(1, pages + 1):
        yield from store.experiments.search(replace(search, page=page), account, TODAY).experiments


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(found=EXPERIMENTS, account=ACCOUNTS, search=SEARCHES)
def test_sql_and_the_model_say_the_same(
    store: Store, found: list[Experiment], account: Account, search: Search
) -> None:
    store.experiments.replace_source("files", found, START)
    wanted = expected(search, account, found)
    answers = list(_all_pages(store, search, account))
    assert {one.id for one in answers} == wanted and len(answers) == len(wanted)
    assert store.experiments.search(search, account, TODAY).total == len(wanted)
    readable = {one.instrument for one in found if may_read(account, one, TODAY).allowed and one.instrument}
    assert store.experiments.instruments(account, TODAY) == sorted(readable)


ALICE = Account(id=1, username="alice", uid=1, gid=1)
ADMIN = Account(id=2, username="root", uid=2, gid=2, roles=frozenset({Role.ADMIN}))


@pytest.mark.parametrize(
    ("text", "is_found"),
    [
        ("", True),
        ("zurich", True),
        ("ZÜRICH gold", True),
        ("gold zurich", True),
        ("gold silver", False),
        ("angstrom", True),
        ("ångström alice", True),
        ("strasse STRASSE straße", True),
        ("p-z", True),
        ("p03 saxs", True),
        ("10.5072/abc", True),
        ("https://doi.org/10.5072/ABC", True),
        ("doi:", True),
        ("100%", True),
        ("%", True),
        ("1%0", False),
        ("_", False),
        ("\\", False),
        ("go_d", False),
        ("' OR 1=1 --", False),
        ("calibration", True),
        ("ﬁlm", True),
        ("goldfilm", False),
    ],
)
def test_what_people_type(store: Store, clock: Clock, text: str, is_found: bool) -> None:
    one = experiment(
        "z",
        title="Zürich: 100% Gold film, Straße",
        technique="SAXS",
        doi="10.5072/abc",
        summary="A calibration.",
        team=(Member("alice", "Alice Ångström"),),
    )
    store.experiments.replace_source("files", [one], clock())
    assert store.experiments.search(Search(text=text), ALICE, clock.today).total == is_found


def test_a_pasted_page_of_words_is_cut(store: Store, clock: Clock) -> None:
    assert len(words(" ".join(f"w{number}" for number in range(500)))) == 100
    assert store.experiments.search(Search(text="a " * 100), ALICE, clock.today).total == 0


def test_orders(store: Store, clock: Clock) -> None:
    days = {"1": date(2020, 1, 1), "2": date(2022, 1, 1), "3": None, "4": date(2021, 1, 1)}
    places = {"1": "P03", "2": "P01", "3": "P02", "4": "P01"}
    found = [
        experiment(key, start=day, instrument=places[key], proposal=f"p{9 - int(key)}") for key, day in days.items()
    ]
    store.experiments.replace_source("files", found, clock())
    orders = {Sort.NEWEST: "2413", Sort.OLDEST: "1423", Sort.INSTRUMENT: "2431", Sort.PROPOSAL: "4321"}
    for sort, order in orders.items():
        page = store.experiments.search(Search(sort=sort), ADMIN, clock.today)
        assert "".join(one.id for one in page.experiments) == order, sort


def test_pages_hold_everything_once(store: Store, clock: Clock) -> None:
    """Also when many have the same date, or none."""
    found = [experiment(f"{n:03}", start=date(2020, 1, 1) if n % 3 else None) for n in range(33)]
    store.experiments.replace_source("files", found, clock())
    for sort in Sort:
        search = Search(sort=sort, page_size=10)
        pages = [store.experiments.search(replace(search, page=page), ADMIN, clock.today) for page in range(1, 6)]
        assert [len(page.experiments) for page in pages] == [10, 10, 10, 3, 0]
        assert len({one.id for page in pages for one in page.experiments}) == 33
        assert {(page.total, page.pages) for page in pages} == {(33, 4)}
    assert store.experiments.search(Search(page=1_000_000), ADMIN, clock.today).experiments == ()
