"""One account with one uid for life, whatever the logins say and however many come at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from visahub.model.account import Identity, Role
from visahub.model.errors import Refused
from visahub.store.database import Store


def identity(name: str, subject: str = "", **more: object) -> Identity:
    return Identity(issuer="https://login.example", subject=subject or name, username=name, **more)  # type: ignore[arg-type]


def test_first_login_makes_an_account_with_the_next_free_uid(store: Store) -> None:
    first = store.accounts.enter(identity("alice", email="a@example.org", roles=frozenset({Role.STAFF})), uid_min=20000)
    second = store.accounts.enter(identity("bob"), uid_min=20000)
    third = store.accounts.enter(identity("carol"), uid_min=30000)
    assert (first.uid, first.gid, second.uid, third.uid) == (20000, 20000, 20001, 30000)
    assert first.roles == {Role.STAFF} and first.email == "a@example.org" and first.quota == 2
    assert store.accounts.get(first.id) == first == store.accounts.named("alice")
    assert store.accounts.all() == [first, second, third]


def test_later_logins_update_all_but_name_uid_and_quota(store: Store) -> None:
    first = store.accounts.enter(identity("alice", "s1", quota=5, groups=frozenset({"g"})), uid_min=20000)
    again = store.accounts.enter(
        identity("alice-new", "s1", display_name="Alice", instruments=frozenset({"P03"})), uid_min=50000
    )
    assert (again.id, again.username, again.uid, again.quota) == (first.id, "alice", first.uid, 5)
    assert again.display_name == "Alice" and again.instruments == {"P03"} and again.groups == frozenset()
    assert store.accounts.named("alice-new") is None


def test_a_taken_username_is_refused_and_changes_nothing(store: Store) -> None:
    first = store.accounts.enter(identity("alice", "s1"), uid_min=20000)
    with pytest.raises(Refused, match="belongs to another account") as refused:
        store.accounts.enter(identity("alice", "s2"), uid_min=20000)
    assert refused.value.rule == "username-taken"
    with pytest.raises(Refused):
        store.accounts.enter(Identity(issuer="https://other.example", subject="s1", username="alice"), uid_min=20000)
    assert store.accounts.all() == [first]


def test_first_logins_at_once_never_share_a_uid(store: Store, other: Store) -> None:
    """Twelve people and, for each, two tabs: twelve accounts, twelve uids."""
    stores = [store, other]
    people = [identity(f"user{number}") for number in range(12)] * 2
    with ThreadPoolExecutor(6) as pool:
        entering = [
            pool.submit(partial(stores[number % 2].accounts.enter, who, uid_min=20000))
            for number, who in enumerate(people)
        ]
        entered = [one.result() for one in entering]
    assert len({account.id for account in entered}) == 12
    assert sorted(account.uid for account in store.accounts.all()) == list(range(20000, 20012))


def test_what_is_not_there_is_none(store: Store) -> None:
    assert store.accounts.get(1) is None
    assert store.accounts.get(-1) is None
    assert store.accounts.get(10**30) is None
    assert store.accounts.named("no\x00body") is None
    assert store.accounts.named("\ud800") is None
