"""Preferences follow the person; one page's do not wipe out another's."""

from __future__ import annotations

import pytest

from visahub.model.account import Account
from visahub.model.errors import Refused
from visahub.store.database import Store


def test_preferences_are_kept_side_by_side(store: Store, alice: Account) -> None:
    assert store.preferences.get(alice.id) == {}
    store.preferences.put(alice.id, {"last": {"name": "ä", "experiments": ["x"]}})
    store.preferences.put(alice.id, {"sort": "newest"})
    assert store.preferences.get(alice.id) == {"last": {"name": "ä", "experiments": ["x"]}, "sort": "newest"}
    store.preferences.put(alice.id, {"sort": None})
    assert store.preferences.get(alice.id) == {"last": {"name": "ä", "experiments": ["x"]}}


def test_too_much_is_refused_and_changes_nothing(store: Store, alice: Account) -> None:
    store.preferences.put(alice.id, {"a": 1})
    with pytest.raises(Refused):
        store.preferences.put(alice.id, {"b": "x" * 70_000})
    assert store.preferences.get(alice.id) == {"a": 1}


def test_strange_text_comes_back(store: Store, alice: Account) -> None:
    store.preferences.put(alice.id, {"text": "a\x00b \U0001f600"})
    assert store.preferences.get(alice.id)["text"] == "a\x00b \U0001f600"
