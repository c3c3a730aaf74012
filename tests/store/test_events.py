"""Whatever happens, in any order: the events lead to the row, attempts are never reused, what waits has a deadline."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from visahub.model.errors import Refused
from visahub.model.instance import Phase, Want
from visahub.model.launch import Step
from visahub.store.database import Store
from visahub.store.events import add, replay
from visahub.testing.clock import Clock

from .conftest import Postgres
from .test_admission import admit, enter

NAMES = st.sampled_from(["one", "two", "three"])
QUOTA = 2


class Life(RuleBasedStateMachine):
    """All that may be done to the instances of one account."""

    make_url: Callable[[], str]

    @initialize()
    def begin(self) -> None:
        self.store = Store(type(self).make_url())
        self.clock = Clock()
        self.owner = enter(self.store, "alice", QUOTA)
        self.attempts: set[str] = set()
        self.phases: dict[str, Phase] = {}
        self.seen: dict[str, list[int]] = {}

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()

    @rule(name=NAMES)
    def start(self, name: str) -> None:
        before = self.store.instances.live()
        try:
            made = admit(self.store, self.owner, name, self.clock)
        except Refused:
            assert self.store.instances.live() == before
            return
        assert made.attempt not in self.attempts
        self.attempts.add(made.attempt)

    @rule(name=NAMES, is_stale=st.booleans(), key=st.sampled_from(["account", "files"]))
    def step(self, name: str, is_stale: bool, key: str) -> None:
        row = self.store.instances.named(self.owner.id, name)
        if row is None:
            return
        try:
            attempt = "stale" if is_stale else row.attempt
            self.store.instances.step(row.id, attempt, Step(key=key, text="t", percent=1), self.clock())
        except Refused:
            assert is_stale or row.want is not Want.ON or row.phase is not Phase.STARTING
            assert self.store.instances.get(row.id) == row
        else:
            assert not is_stale and row.want is Want.ON and row.phase is Phase.STARTING

    @rule(name=NAMES, phase=st.sampled_from(Phase), sentence=st.sampled_from(["", "Said."]))
    def move(self, name: str, phase: Phase, sentence: str) -> None:
        row = self.store.instances.named(self.owner.id, name)
        if row is None or (phase is Phase.STARTING and row.phase is not Phase.STARTING):
            return
        try:
            self.store.instances.move(row.id, phase, self.clock(), attempt=row.attempt, sentence=sentence)
        except Refused:
            assert self.store.instances.get(row.id) == row

    @rule(name=NAMES, want=st.sampled_from(Want))
    def wish(self, name: str, want: Want) -> None:
        row = self.store.instances.named(self.owner.id, name)
        if row is not None:
            order = [Want.ON, Want.OFF, Want.GONE]
            assert self.store.instances.wish(row.id, want, self.clock()).want is max(row.want, want, key=order.index)

    @rule(seconds=st.floats(0, 100))
    def wait(self, seconds: float) -> None:
        self.clock.forward(seconds=seconds)

    @invariant()
    def events_lead_to_the_rows(self) -> None:
        for row in self._rows():
            events = self.store.instances.events(row.id)
            assert replay(events) is row.phase
            # Only ever added to.
            ids = [event.id for event in events]
            assert ids[: len(self.seen.get(row.id, []))] == self.seen.get(row.id, [])
            self.seen[row.id] = ids
            open_steps = [event for event in events if event.kind == "step" and event.seconds is None]
            assert len(open_steps) <= (row.phase is Phase.STARTING)
            assert all(event.attempt == row.attempt for event in open_steps)

    @invariant()
    def what_waits_has_a_deadline(self) -> None:
        assert all(row.deadline is not None for row in self._rows() if row.phase.is_waiting)

    @invariant()
    def the_quota_holds(self) -> None:
        assert sum(row.want is not Want.GONE for row in self._rows()) <= QUOTA

    def _rows(self) -> list:  # type: ignore[type-arg]
        return self.store.instances.live() if hasattr(self, "store") else []


def _run(make_url: Callable[[], str], examples: int) -> None:
    machine = type("LifeHere", (Life,), {"make_url": staticmethod(make_url)})
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large]
    run_state_machine_as_test(
        machine,
        settings=settings(max_examples=examples, stateful_step_count=25, deadline=None, suppress_health_check=checks),
    )


def test_any_life_on_sqlite(migrated_file: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        numbers = iter(range(100_000))

        def fresh() -> str:
            path = Path(folder) / f"{next(numbers)}.sqlite"
            shutil.copy(migrated_file, path)
            return f"sqlite:///{path}"

        _run(fresh, 25)


def test_any_life_on_postgres(postgres: Postgres) -> None:
    _run(postgres.clean, 8)


def test_ids_become_visible_in_their_order(store: Store, other: Store, clock: Clock) -> None:
    """Who polls the highest id misses nothing: an event waits for those that have a lower id."""
    owner = enter(store, "alice", -1)
    one, two = (admit(store, owner, name, clock) for name in ("one", "two"))
    with ThreadPoolExecutor(1) as pool:
        with store.database.write() as connection:
            add(store.database, connection, one, clock(), "note", text="first")
            second = pool.submit(other.instances.note, two.id, "second", clock())
            time.sleep(0.2)
            assert not second.done()
        second.result()
    first, last = (store.instances.events(row.id)[-1] for row in (one, two))
    assert first.id < last.id == store.instances.last_event()
