"""The mirror writes a source as a whole or not at all, and forgets nothing that was there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import date

import pytest

from visahub.model.account import Account
from visahub.model.errors import Refused
from visahub.model.experiment import Experiment, Member, Search, TeamRole
from visahub.store.database import Store
from visahub.store.experiments import Changes
from visahub.testing.clock import Clock

PI = Member("alice", "Alice Ångström", TeamRole.PRINCIPAL_INVESTIGATOR)


def experiment(key: str, **more: object) -> Experiment:
    values: dict[str, object] = {"proposal": f"p-{key}", "title": f"Title {key}", "instrument": "P03", **more}
    return Experiment(id=key, **values)  # type: ignore[arg-type]


FULL = experiment(
    "full",
    start=date(2024, 2, 29),
    end=date(2024, 3, 1),
    public_at=date(2027, 5, 3),
    team=(PI, Member("bob"), Member("", "No account", TeamRole.LOCAL_CONTACT), Member("alice", "twice")),
    path="/data/2024/full",
    doi="10.5072/Full",
    url="https://example.org/full",
    summary="Long.\nText.",
    licence="CC-BY-4.0",
    technique="SAXS",
    is_sample=True,
)


def test_an_experiment_comes_back_as_it_was(store: Store, clock: Clock) -> None:
    bare = experiment("bare")
    assert store.experiments.replace_source("files", [FULL, bare], clock()) == Changes(added=2)
    assert store.experiments.get(["full", "bare", "absent", "a\x00b"]) == {
        "full": replace(FULL, source="files"),
        "bare": replace(bare, source="files"),
    }
    assert store.experiments.count() == 2


def test_a_mirror_counts_what_it_changed(store: Store, clock: Clock) -> None:
    one, two, three = experiment("1"), experiment("2", team=(PI,)), experiment("3")
    store.experiments.replace_source("files", [one, two, three], clock())
    assert store.experiments.replace_source("files", [one, two, three], clock()) == Changes()
    again = replace(two, team=(PI, Member("bob")))
    assert store.experiments.replace_source("files", [one, again], clock()) == Changes(changed=1, withdrawn=1)
    found = store.experiments.get(["2", "3"])
    assert found["2"].team == again.team and found["3"].withdrawn and store.experiments.count() == 2
    assert store.experiments.replace_source("files", [one, again], clock()) == Changes()
    assert store.experiments.replace_source("files", [one, again, three], clock()) == Changes(changed=1)
    assert not store.experiments.get(["3"])["3"].withdrawn


def test_sources_do_not_touch_each_other(store: Store, clock: Clock) -> None:
    store.experiments.replace_source("one", [experiment("1")], clock())
    store.experiments.replace_source("two", [experiment("2")], clock())
    assert store.experiments.replace_source("two", [], clock()) == Changes(withdrawn=1)
    assert not store.experiments.get(["1"])["1"].withdrawn


def test_a_foreign_id_is_refused_until_it_is_given_up(store: Store, clock: Clock) -> None:
    store.experiments.replace_source("one", [experiment("1")], clock())
    with pytest.raises(Refused) as refused:
        store.experiments.replace_source("two", [experiment("2"), experiment("1", title="Stolen")], clock())
    assert refused.value.rule == "foreign-experiment" and "'one'" in refused.value.sentence
    assert store.experiments.count() == 1 and store.experiments.get(["1"])["1"].title == "Title 1"
    store.experiments.replace_source("one", [], clock())
    assert store.experiments.replace_source("two", [experiment("1", title="New")], clock()) == Changes(changed=1)
    found = store.experiments.get(["1"])["1"]
    assert (found.source, found.title, found.withdrawn) == ("two", "New", False)


def _broken() -> Iterator[Experiment]:
    yield experiment("1")
    raise OSError("the source went away")


def test_half_a_source_changes_nothing(store: Store, clock: Clock) -> None:
    store.experiments.replace_source("files", [experiment("2")], clock())
    with pytest.raises(OSError, match="went away"):
        store.experiments.replace_source("files", _broken(), clock())
    with pytest.raises(Refused, match="twice"):
        store.experiments.replace_source("files", [experiment("1"), experiment("1")], clock())
    assert set(store.experiments.get(["1", "2"])) == {"2"} and not store.experiments.get(["2"])["2"].withdrawn


def test_a_large_source_is_written_and_read(store: Store, clock: Clock) -> None:
    many = [experiment(f"{number:05}", team=(PI,) * 3) for number in range(1600)]
    assert store.experiments.replace_source("files", iter(many), clock()) == Changes(added=1600)
    assert len(store.experiments.get(one.id for one in many)) == 1600
    changed = [replace(one, title="Other") for one in many]
    assert store.experiments.replace_source("files", changed, clock()) == Changes(changed=1600)
    assert {one.title for one in store.experiments.get(one.id for one in many).values()} == {"Other"}


def test_text_that_no_database_keeps_is_mended(store: Store, alice: Account, clock: Clock) -> None:
    odd = experiment("odd", title="a\x00b \ud800 \U0001f600", team=(Member("alice", "A\x00"),))
    store.experiments.replace_source("files", [odd], clock())
    assert store.experiments.get(["odd"])["odd"].title == "a\ufffdb \ufffd \U0001f600"
    assert store.experiments.replace_source("files", [odd], clock()) == Changes()
    assert store.experiments.search(Search(text="a\x00b"), alice, clock.today).total == 1


def test_deep_links_find_proposals_and_dois(store: Store, clock: Clock) -> None:
    one, two = experiment("1", proposal="P-7"), experiment("2", proposal="P-7", doi="10.5072/Two")
    store.experiments.replace_source("files", [one, two, experiment("3"), FULL], clock())
    assert [found.id for found in store.experiments.find(["P-7"], [])] == ["1", "2"]
    assert [found.id for found in store.experiments.find(["P"], ["10.5072"])] == []
    for doi in ("10.5072/Two", "https://doi.org/10.5072/Two", "doi:10.5072/Two", " DOI:10.5072/Two "):
        assert [found.id for found in store.experiments.find([], [doi])] == ["2"]
    assert [found.id for found in store.experiments.find(["P-7"], ["10.5072/Full", ""])] == ["1", "2", "full"]
