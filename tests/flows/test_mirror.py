"""A source becomes the catalogue, whole or not at all."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import pytest

from visahub.flows.mirror import mirror
from visahub.model.errors import Refused, Unavailable
from visahub.model.experiment import Experiment
from visahub.sources.base import Source

from .world import World


class ListSource(Source):
    """Gives what it was given; an exception in the list is raised at its place."""

    given: list[Experiment | Exception]

    def experiments(self, since: datetime | None = None) -> Iterable[Experiment]:
        for one in self.given:
            if isinstance(one, Exception):
                raise one
            yield one


def source(*given: Experiment | Exception) -> ListSource:
    made = ListSource(id="list")
    made.given = list(given)
    return made


def experiment(key: str, title: str = "t") -> Experiment:
    return Experiment(id=key, proposal=key, title=title, instrument="P03")


def test_added_changed_withdrawn(world: World) -> None:
    changes = mirror(world.store, source(experiment("a"), experiment("b")), world.clock())
    assert (changes.added, changes.changed, changes.withdrawn) == (2, 0, 0)
    changes = mirror(world.store, source(experiment("a", "new"), experiment("c")), world.clock())
    assert (changes.added, changes.changed, changes.withdrawn) == (1, 1, 1)
    found = world.store.experiments.get(["a", "b", "mine"])
    assert (found["a"].title, found["a"].source) == ("new", "list")
    assert found["b"].withdrawn
    assert not found["mine"].withdrawn


def test_twice_is_once(world: World) -> None:
    mirror(world.store, source(experiment("a")), world.clock())
    changes = mirror(world.store, source(experiment("a")), world.clock())
    assert (changes.added, changes.changed, changes.withdrawn) == (0, 0, 0)


@pytest.mark.parametrize("failure", [Refused("Row 3 is wrong.", rule="r"), Unavailable("Away."), OSError("reset")])
def test_a_source_that_breaks_off_changes_nothing(world: World, failure: Exception) -> None:
    mirror(world.store, source(experiment("a")), world.clock())
    with pytest.raises(type(failure)):
        mirror(world.store, source(experiment("b"), failure), world.clock())
    assert set(world.store.experiments.get(["a", "b"])) == {"a"}
    assert not world.store.experiments.get(["a"])["a"].withdrawn


def test_an_empty_source_does_not_empty_the_catalogue(world: World) -> None:
    mirror(world.store, source(experiment("a")), world.clock())
    with pytest.raises(Unavailable, match="no experiment at all"):
        mirror(world.store, source(), world.clock())
    assert not world.store.experiments.get(["a"])["a"].withdrawn
