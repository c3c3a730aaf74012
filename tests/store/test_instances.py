"""The table that is the truth about what runs: steps, moves, wishes and their events."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import text

from visahub.model.account import Account
from visahub.model.errors import Refused
from visahub.model.instance import Instance, Phase, Want
from visahub.model.launch import Step
from visahub.store.database import Store
from visahub.store.events import replay
from visahub.testing.clock import Clock

from .test_admission import admit, enter


@pytest.fixture
def started(store: Store, alice: Account, clock: Clock) -> Instance:
    return admit(store, alice, "one", clock)


def step(key: str, percent: int = 10, **more: object) -> Step:
    return Step(key=key, text=f"Now {key}", percent=percent, **more)  # type: ignore[arg-type]


def test_steps_are_kept_with_their_durations(store: Store, started: Instance, clock: Clock) -> None:
    store.instances.step(started.id, started.attempt, step("account"), clock.forward(seconds=1))
    store.instances.step(started.id, started.attempt, step("files", state={"a": 1}), clock.forward(seconds=2))
    assert store.instances.events(started.id)[-1].seconds is None
    store.instances.step(
        started.id, started.attempt, step("answers", 95, address="http://x:1"), clock.forward(seconds=3)
    )
    ready = store.instances.move(started.id, Phase.READY, clock.forward(seconds=0.5), attempt=started.attempt)
    assert (ready.state, ready.address, ready.deadline, ready.ready) == ({"a": 1}, "http://x:1", None, clock())
    events = store.instances.events(started.id)
    assert [(event.kind, event.key, event.seconds) for event in events] == [
        ("starting", "", None),
        ("step", "account", 2.0),
        ("step", "files", 3.0),
        ("step", "answers", 0.5),
        ("ready", "", None),
    ]
    assert events[2].text == "Now files" and events[3].percent == 95 and events[1].at.tzinfo is UTC
    assert store.instances.events(started.id, after=events[3].id) == events[4:]
    assert store.instances.events(started.id, after=10**40) == [] and store.instances.last_event() == events[-1].id


def test_a_stale_attempt_changes_nothing(store: Store, started: Instance, clock: Clock) -> None:
    last = store.instances.last_event()
    for change in (
        lambda: store.instances.step(started.id, "other", step("x", state={"b": 1}), clock()),
        lambda: store.instances.move(started.id, Phase.READY, clock(), attempt="other"),
    ):
        with pytest.raises(Refused) as refused:
            change()
        assert (refused.value.rule, refused.value.status) == ("superseded", 409)
    assert store.instances.get(started.id) == started and store.instances.last_event() == last


def test_no_step_after_a_wish_or_an_end(store: Store, started: Instance, clock: Clock) -> None:
    store.instances.wish(started.id, Want.OFF, clock())
    with pytest.raises(Refused, match="replaced"):
        store.instances.step(started.id, started.attempt, step("x"), clock())
    two = admit(store, enter(store, "bob", 1), "two", clock)
    store.instances.move(two.id, Phase.ERROR, clock(), sentence="Too late.")
    with pytest.raises(Refused, match="replaced"):
        store.instances.step(two.id, two.attempt, step("x"), clock())


def test_a_move_that_is_not_allowed_changes_nothing(store: Store, started: Instance, clock: Clock) -> None:
    with pytest.raises(Refused) as refused:
        store.instances.move(started.id, Phase.GONE, clock())
    assert refused.value.rule == "move"
    with pytest.raises(TypeError):
        store.instances.move(started.id, Phase.READY, clock(), owner_id=7)
    assert store.instances.get(started.id) == started


def test_an_error_keeps_its_sentence_and_the_state_to_clean_up(store: Store, started: Instance, clock: Clock) -> None:
    store.instances.step(started.id, started.attempt, step("process", state={"pid": 4}, address="http://x"), clock())
    broken = store.instances.move(
        started.id, Phase.ERROR, clock.forward(seconds=1), attempt=started.attempt, sentence="It broke.", want=Want.OFF
    )
    assert (broken.want, broken.sentence, broken.state, broken.address) == (Want.OFF, "It broke.", {"pid": 4}, "")
    assert broken.deadline is None and broken.stopped == clock()
    assert [(event.kind, event.text) for event in store.instances.events(started.id)][-1] == ("error", "It broke.")


def test_a_move_that_says_nothing_new_leaves_no_event(store: Store, started: Instance, clock: Clock) -> None:
    stopping = store.instances.move(started.id, Phase.STOPPING, clock())
    last = store.instances.last_event()
    assert store.instances.move(started.id, Phase.STOPPING, clock.forward(seconds=9)) == stopping
    assert store.instances.last_event() == last
    assert store.instances.move(started.id, Phase.STOPPING, clock(), sentence="Slow today.").sentence == "Slow today."
    assert store.instances.last_event() == last + 1


def test_whatever_waits_has_a_deadline(store: Store, started: Instance, clock: Clock) -> None:
    named = clock() + timedelta(seconds=7)
    assert store.instances.move(started.id, Phase.STOPPING, clock(), deadline=named).deadline == named
    assert store.instances.move(started.id, Phase.STOPPED, clock()).deadline is None
    deleting = store.instances.move(started.id, Phase.DELETING, clock())
    assert deleting.deadline is not None and deleting.deadline > clock()


def test_wishes_only_grow(store: Store, started: Instance, clock: Clock) -> None:
    assert store.instances.wish(started.id, Want.OFF, clock()).want is Want.OFF
    assert store.instances.wish(started.id, Want.ON, clock()).want is Want.OFF
    assert store.instances.wish(started.id, Want.GONE, clock()).want is Want.GONE
    assert store.instances.wish(started.id, Want.OFF, clock()).want is Want.GONE
    # A late end of a start must not take back the wish to delete.
    assert store.instances.move(started.id, Phase.ERROR, clock(), sentence="x", want=Want.OFF).want is Want.GONE
    with pytest.raises(Refused) as refused:
        store.instances.wish("absent", Want.OFF, clock())
    assert refused.value.status == 404


def test_notes_keep_the_end_of_a_long_log(store: Store, started: Instance, clock: Clock) -> None:
    store.instances.note(started.id, "x" * 30_000 + "the end\x00\ud800", clock())
    note = store.instances.events(started.id)[-1]
    assert note.kind == "note" and len(note.text) == 20_000 and note.text.endswith("the end\ufffd\ufffd")
    with pytest.raises(Refused):
        store.instances.note("absent", "x", clock())


def test_touch_only_goes_forward(store: Store, started: Instance, clock: Clock) -> None:
    early, late = clock(), clock() + timedelta(minutes=1)
    store.instances.touch(started.id, last_activity=late)
    store.instances.touch(started.id, last_activity=early, last_input=early)
    row = store.instances.get(started.id)
    assert row is not None and (row.last_activity, row.last_input, row.changed) == (late, early, started.changed)
    store.instances.touch("absent", last_input=early)


def test_times_of_another_zone_come_back_as_utc(store: Store, started: Instance) -> None:
    berlin = datetime(2026, 11, 21, 10, 30, tzinfo=timezone(timedelta(hours=1)))
    store.instances.touch(started.id, last_input=berlin)
    row = store.instances.get(started.id)
    assert row is not None and row.last_input == berlin and row.last_input.utcoffset() == timedelta(0)
    with pytest.raises(Exception, match="without a zone"):
        store.instances.touch(started.id, last_input=datetime(2026, 11, 21, 10, 30))


def test_rename_changes_name_and_notes(store: Store, started: Instance, clock: Clock) -> None:
    renamed = store.instances.rename(started.id, "Zürich", "line\nline", clock())
    assert (renamed.name, renamed.request.notes) == ("Zürich", "line\nline")
    assert renamed.request.environment == "python" and store.instances.get(started.id) == renamed
    assert store.instances.rename(started.id, "", "", clock()).name == "Zürich"


def test_lists_are_newest_first_and_without_the_gone(store: Store, alice: Account, clock: Clock) -> None:
    one = admit(store, alice, "one", clock)
    clock.forward(seconds=1)
    two = admit(store, alice, "two", clock)
    three = admit(store, enter(store, "bob", 1), "three", clock)
    assert [row.id for row in store.instances.of_owner(alice.id)] == ["two", "one"]
    assert [row.id for row in store.instances.live()] == ["one", "three", "two"]
    store.instances.move(one.id, Phase.DELETING, clock())
    gone = store.instances.move(one.id, Phase.GONE, clock())
    assert [row.id for row in store.instances.of_owner(alice.id)] == ["two"]
    assert store.instances.get("one") == gone
    assert store.instances.counts() == {("local", "starting"): 2}
    assert store.instances.by_attempts([two.attempt, three.attempt, "x"]) == {two.attempt: two, three.attempt: three}


def test_usual_seconds_are_the_median_of_successful_starts(store: Store, alice: Account, clock: Clock) -> None:
    assert store.instances.usual_seconds("local") == {}
    for seconds, ends_well in ((1, True), (3, True), (8, True), (500, False)):
        row = admit(store, alice, "one", clock)
        store.instances.step(row.id, row.attempt, step("account"), clock())
        store.instances.step(row.id, row.attempt, step("process"), clock.forward(seconds=seconds))
        if ends_well:
            store.instances.move(row.id, Phase.READY, clock.forward(seconds=2))
        store.instances.move(row.id, Phase.ERROR, clock(), sentence="x")
    assert store.instances.usual_seconds("local") == {"account": 3.0, "process": 2.0}
    assert store.instances.usual_seconds("other") == {}


def test_strange_ids_are_not_found(store: Store) -> None:
    for strange in ("", "a\x00b", "\udfff", "'; --", "x" * 10_000):
        assert store.instances.get(strange) is None and store.instances.events(strange) == []
        assert store.instances.named(1, strange) is None


def test_two_moves_at_once_happen_one_after_the_other(
    store: Store, other: Store, started: Instance, clock: Clock
) -> None:
    """One of them finds what the other has made of it; no event is lost and none is doubled."""
    phases = [Phase.READY, Phase.STOPPING, Phase.STOPPED, Phase.ERROR] * 3
    with ThreadPoolExecutor(8) as pool:
        moves = [
            pool.submit(_try_move, [store, other][number % 2], started.id, phase, clock())
            for number, phase in enumerate(phases)
        ]
        assert all(move.result() in {"", "move"} for move in moves)
    row, events = store.instances.get(started.id), store.instances.events(started.id)
    assert row is not None and replay(events) is row.phase
    assert [event.id for event in events] == list(range(events[0].id, events[0].id + len(events)))


def test_a_change_waits_for_the_one_before_it(store: Store, other: Store, started: Instance, clock: Clock) -> None:
    with ThreadPoolExecutor(1) as pool:
        with store.database.write() as connection:
            connection.execute(text("UPDATE instances SET phase = 'stopped'"))
            late = pool.submit(_try_move, other, started.id, Phase.READY, clock())
            time.sleep(0.2)
            assert not late.done()
        assert late.result() == "move"
    row = store.instances.get(started.id)
    assert row is not None and row.phase is Phase.STOPPED


def _try_move(store: Store, instance_id: str, phase: Phase, now: datetime) -> str:
    try:
        store.instances.move(instance_id, phase, now)
    except Refused as refused:
        return refused.rule
    return ""


def test_a_remark_changes_nothing_but_the_sentence(store: Store, started: Instance, clock: Clock) -> None:
    said = "It does not answer."
    store.instances.remark(started.id, started.attempt, said, clock())
    assert store.instances.get(started.id) == started, "only what is ready is remarked upon"
    ready = store.instances.move(started.id, Phase.READY, clock())
    store.instances.remark(started.id, "another attempt", said, clock())
    assert store.instances.get(started.id) == ready
    for _ in range(2):
        store.instances.remark(started.id, started.attempt, said, clock.forward(seconds=1))
        assert store.instances.get(started.id) == replace(ready, sentence=said)
    store.instances.remark(started.id, started.attempt, "", clock())
    assert store.instances.get(started.id) == ready
    events = store.instances.events(started.id)
    assert [event.text for event in events if event.kind == "remark"] == [said, "It answers again."]
    assert replay(events) is Phase.READY
