"""Names that can be a Unix account, and what a role allows."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visahub.model.account import Account, Identity, Role, is_username
from visahub.model.errors import Refused


def account(*roles: Role) -> Account:
    return Account(id=1, username="alice", uid=20000, gid=20000, email="alice@example.org", roles=frozenset(roles))


@pytest.mark.parametrize("name", ["alice", "a1", "jean-luc", "x_ray", "a" * 32])
def test_good_names(name: str) -> None:
    assert is_username(name)


@pytest.mark.parametrize(
    "name",
    ["", "a", "Alice", "1a", "-a", "a-", "a_", "a b", "a\n", "a.b", "..", "root/x", "ä1", "a" * 33, "\uff41\uff42"],
)
def test_bad_names(name: str) -> None:
    assert not is_username(name)
    with pytest.raises(Refused) as caught:
        Identity(issuer="i", subject="s", username=name)
    assert caught.value.rule == "username"


@given(st.text(max_size=40))
def test_a_good_name_is_safe_in_paths_and_scripts(name: str) -> None:
    if is_username(name):
        assert name.isascii()
        assert not set(name) & set("/.\\ \n\0$;:'\"")
        assert re.fullmatch("[a-z].*", name)


def test_an_ordinary_user_needs_an_experiment() -> None:
    assert not account().may_start_without_experiment
    for role in Role:
        assert account(role).may_start_without_experiment


def test_mail_addresses_are_not_in_logs() -> None:
    assert "example.org" not in repr(account())
    assert "example.org" not in repr(Identity(issuer="i", subject="s", username="alice", email="alice@example.org"))
