"""Who may start what, decided once and for all within one transaction, however many ask at the same time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest

from visahub.model.account import Account, Identity
from visahub.model.errors import Refused
from visahub.model.instance import Instance, Phase, Want
from visahub.model.launch import Step
from visahub.model.request import StartRequest
from visahub.store.database import Store
from visahub.testing.clock import Clock

REQUEST = StartRequest(environment="python", hardware="small", name="mine")


def admit(store: Store, account: Account, name: str, clock: Clock, request: StartRequest = REQUEST) -> Instance:
    return store.instances.admit(
        account=account,
        server_name=name,
        request=request,
        backend="local",
        now=clock(),
        deadline=clock() + timedelta(minutes=2),
    )


def enter(store: Store, username: str, quota: int) -> Account:
    identity = Identity(issuer="test", subject=username, username=username, quota=quota)
    return store.accounts.enter(identity, uid_min=20000)


def _try(store: Store, account: Account, name: str, clock: Clock) -> str:
    try:
        return admit(store, account, name, clock).id
    except Refused as refused:
        return refused.rule


def test_an_admitted_start_is_written_whole(store: Store, alice: Account, clock: Clock) -> None:
    made = admit(store, alice, "i123456789", clock)
    assert made == store.instances.get("i123456789") == store.instances.named(alice.id, "i123456789")
    assert (made.id, made.owner, made.want, made.phase) == ("i123456789", "alice", Want.ON, Phase.STARTING)
    assert made.request == REQUEST and made.deadline == clock() + timedelta(minutes=2)
    assert made.created == made.started == clock() and made.created.utcoffset() == timedelta(0)
    assert len(made.attempt) == 26
    assert [event.kind for event in store.instances.events(made.id)] == ["starting"]


def test_a_start_without_a_name_gets_one_and_keeps_it(store: Store, alice: Account, clock: Clock) -> None:
    made = admit(store, alice, "", clock, replace(REQUEST, name=""))
    assert "-" in made.request.name and made.id.startswith("i") and made.server_name == ""
    store.instances.move(made.id, Phase.STOPPED, clock())
    again = admit(store, alice, "", clock, replace(REQUEST, name=""))
    assert again.id == made.id and again.request.name == made.request.name


def test_a_stopped_instance_starts_again_with_a_fresh_attempt(store: Store, alice: Account, clock: Clock) -> None:
    made = admit(store, alice, "one", clock)
    step = Step(key="process", text="p", percent=5, state={"pid": 7}, address="http://x")
    store.instances.step(made.id, made.attempt, step, clock())
    store.instances.move(made.id, Phase.ERROR, clock.forward(seconds=5), sentence="It broke.", want=Want.OFF)
    again = admit(store, alice, "one", clock)
    assert again.id == made.id and again.attempt != made.attempt and again.created == made.created
    assert (again.want, again.phase, again.state, again.address, again.sentence) == (
        Want.ON,
        Phase.STARTING,
        {},
        "",
        "",
    )
    assert store.instances.known_attempts([made.attempt, again.attempt, "x"]) == {made.attempt, again.attempt}
    assert set(store.instances.by_attempts([made.attempt, again.attempt])) == {again.attempt}


@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.READY, Phase.STOPPING, Phase.DELETING])
def test_what_runs_is_refused_and_unchanged(store: Store, alice: Account, clock: Clock, phase: Phase) -> None:
    made = admit(store, alice, "one", clock)
    if phase is not Phase.STARTING:
        made = store.instances.move(made.id, phase, clock())
    last = store.instances.last_event()
    with pytest.raises(Refused) as refused:
        admit(store, alice, "one", clock)
    assert (refused.value.rule, refused.value.status) == ("already", 409)
    assert store.instances.get(made.id) == made and store.instances.last_event() == last


def test_what_is_to_be_deleted_never_starts_again(store: Store, alice: Account, clock: Clock) -> None:
    made = admit(store, alice, "one", clock)
    store.instances.move(made.id, Phase.STOPPED, clock())
    store.instances.wish(made.id, Want.GONE, clock())
    with pytest.raises(Refused) as refused:
        admit(store, alice, "one", clock)
    assert refused.value.rule == "already"


def test_a_deleted_name_is_free_but_its_id_is_not(store: Store, alice: Account, clock: Clock) -> None:
    made = admit(store, alice, "one", clock)
    store.instances.wish(made.id, Want.GONE, clock())
    store.instances.move(made.id, Phase.DELETING, clock())
    store.instances.move(made.id, Phase.GONE, clock())
    assert store.instances.named(alice.id, "one") is None and store.instances.of_owner(alice.id) == []
    again = admit(store, alice, "one", clock)
    assert again.id != made.id and store.instances.named(alice.id, "one") == again


def test_a_name_that_cannot_be_an_id_is_not_one(store: Store, alice: Account, clock: Clock) -> None:
    made = admit(store, alice, "../etc", clock)
    assert made.server_name == "../etc" and made.id.isalnum()


def test_two_owners_may_use_one_name(store: Store, alice: Account, clock: Clock) -> None:
    mine = admit(store, alice, "one", clock)
    theirs = admit(store, enter(store, "bob", 1), "one", clock)
    assert (mine.id, mine.server_name) == ("one", "one")
    assert theirs.id != "one" and theirs.server_name == "one"


def test_the_quota_counts_what_is_kept_not_what_runs(store: Store, alice: Account, clock: Clock) -> None:
    first, second = admit(store, alice, "one", clock), admit(store, alice, "two", clock)
    store.instances.move(first.id, Phase.STOPPED, clock())
    with pytest.raises(Refused, match="2 of 2") as refused:
        admit(store, alice, "three", clock)
    assert (refused.value.rule, refused.value.status) == ("quota", 409)
    assert admit(store, alice, "one", clock).id == first.id
    store.instances.wish(second.id, Want.GONE, clock())
    assert admit(store, alice, "three", clock).id == "three"


def test_quota_zero_waits_for_approval_and_minus_one_has_no_limit(store: Store, clock: Clock) -> None:
    assert _try(store, enter(store, "guest", 0), "one", clock) == "pending-approval"
    bob = enter(store, "bob", -1)
    assert [_try(store, bob, name, clock) for name in ("a", "b", "c", "d")] == ["a", "b", "c", "d"]


def test_parallel_starts_at_quota_one_leave_exactly_one(store: Store, other: Store, clock: Clock) -> None:
    bob = enter(store, "bob", 1)
    with ThreadPoolExecutor(8) as pool:
        tries = [pool.submit(_try, [store, other][n % 2], bob, f"s{n}", clock) for n in range(8)]
        said = [one.result() for one in tries]
    assert sorted(said)[:7] == ["quota"] * 7
    assert [one.id for one in store.instances.live()] == [sorted(said)[7]]


def test_parallel_starts_of_one_name_leave_exactly_one(store: Store, other: Store, clock: Clock) -> None:
    bob = enter(store, "bob", -1)
    with ThreadPoolExecutor(8) as pool:
        tries = [pool.submit(_try, [store, other][n % 2], bob, "same", clock) for n in range(8)]
        said = sorted(one.result() for one in tries)
    assert said == ["already"] * 7 + ["same"]
    assert len(store.instances.events("same")) == 1
