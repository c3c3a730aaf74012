"""A login becomes an account."""

from __future__ import annotations

import pytest

from visahub.flows.enter import enter
from visahub.model.account import Identity, Role
from visahub.model.errors import Refused

from .world import World


def test_one_uid_for_life(world: World) -> None:
    first = enter(world.store, Identity(issuer="i", subject="1", username="carol"), uid_min=20000)
    again = enter(
        world.store,
        Identity(issuer="i", subject="1", username="carol", display_name="Carol", roles=frozenset({Role.STAFF})),
        uid_min=30000,
    )
    assert first.uid >= 20000
    assert (again.id, again.uid) == (first.id, first.uid)
    assert (again.display_name, again.roles) == ("Carol", frozenset({Role.STAFF}))


def test_a_name_of_somebody_else_is_refused(world: World) -> None:
    enter(world.store, Identity(issuer="i", subject="1", username="carol"), uid_min=20000)
    with pytest.raises(Refused) as caught:
        enter(world.store, Identity(issuer="other", subject="1", username="carol"), uid_min=20000)
    assert caught.value.rule == "username-taken"
