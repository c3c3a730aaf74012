"""Any order of starts, ends, crashes, lost answers and outages: what is wanted and what runs come together again.

A machine of hypothesis plays users, the Hub that is killed and comes back, and a place that breaks. It asserts what
must hold after every step and after every round, and that a healthy facility settles within two rounds.

The twelve of facts about reliability: one live resource for each attempt (1, `one_resource_for_each_attempt`; for each
instance: `settle`), none without a row after the grace time (2, `settle`), nothing wanted ends without an event (3,
`round_` and `events_tell_the_wish`), what is not wanted is absent within bounded rounds (4, `settle`), "could not ask"
changes nothing (5, `round_`), a second one does nothing (6, `settle`), a row points to its own resource (7), others
are untouched (9), what waits has a deadline (10), events replay to the row (11), the quota neither leaks nor frees (12,
`press_start` and `the_quota_holds`). That a token dies with its attempt (8) is the Hub's: `tests/hub/test_restart.py`.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Coroutine
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from visahub.flows import end, launch, patience
from visahub.flows import reconcile as reconciling
from visahub.flows.reconcile import Report, reconcile
from visahub.model.errors import Failed, Refused, Unavailable, VisahubError
from visahub.model.instance import Instance, Phase, Want
from visahub.testing.backends import POINTS, FakeBackend, Killed

from .world import World, launch_of, template

GRACE_SECONDS = 30
# A new resource is not listed for this long: less than the grace time, as `Visahub.grace_seconds` asks for.
LAG_SECONDS = 25
# Mostly the same one, since what happens to one instance in a row is what matters.
SERVERS = st.sampled_from(["ione", "ione", "ione", "itwo", "ithree"])
QUOTA = 2
# What an event of this kind leaves the row in.
KINDS = {
    "starting": Phase.STARTING,
    "step": Phase.STARTING,
    "ready": Phase.READY,
    "stopping": Phase.STOPPING,
    "stopped": Phase.STOPPED,
    "error": Phase.ERROR,
    "deleting": Phase.DELETING,
    "deleted": Phase.GONE,
}
NO_FAULT = ("none", "")
STORE_FAULTS = ("kill at the store", "kill after the store", "lose the store's answer")
START_FAULTS = st.sampled_from(
    [NO_FAULT] * 4
    + [("kill", "created")] * 4
    + [("kill", point) for point in POINTS]
    + [("fail", point) for point in POINTS]
    + [(how, method) for how in STORE_FAULTS for method in ("step", "move")]
    + [("lose an answer", "start")] * 4
    + [("cannot ask", method) for method in ("start", "create", "stop")]
)
END_FAULTS = st.sampled_from(
    [NO_FAULT] * 4
    + [("kill", point) for point in ("stopping", "stopped", "deleting", "deleted")]
    + [(how, method) for how in STORE_FAULTS for method in ("wish", "move")]
    + [("lose an answer", "stop"), ("cannot ask", "stop"), ("cannot ask", "delete")]
)
ROUND_FAULTS = st.sampled_from(
    [NO_FAULT] * 8
    + [("kill", point) for point in ("stopping", "stopped", "deleting", "deleted")]
    + [(how, "move") for how in STORE_FAULTS]
    + [("lose an answer", "stop"), ("cannot ask", "stop"), ("cannot ask", "delete")]
    + [("cannot ask", "look")] * 2
)


async def ask_at_once(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Stands for `ask`, without its threads: the machine must play the same game twice."""
    return function(*args, **kwargs)


@cache
def empty() -> Path:
    return template(Path(tempfile.mkdtemp(prefix="visahub-machine-")))


class StoreFault:
    """Kills the process at a store call or after it, or loses the call's answer; once."""

    def __init__(self, real: Callable[..., Any]) -> None:
        self._real = real
        self.planned = ""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        planned, self.planned = self.planned, ""
        if planned == "kill at the store":
            raise Killed(planned)
        answer = self._real(*args, **kwargs)
        if planned == "kill after the store":
            raise Killed(planned)
        if planned:
            raise Unavailable("The database does not answer.")
        return answer


class Facility(RuleBasedStateMachine):
    """Users, one Hub after the other, and a place."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="visahub-machine-"))
        (self.folder / "other").mkdir()
        self.world = World(self.folder, empty())
        self.place, self.clock = self.world.place, self.world.clock
        self.alice = self.world.account("alice", quota=QUOTA)
        self.faults = {name: StoreFault(getattr(self.world.store.instances, name)) for name in ("step", "move", "wish")}
        for name, fault in self.faults.items():
            setattr(self.world.store.instances, name, fault)
        self.born: dict[str, Any] = {}
        self.attempts: list[str] = []
        self.hub: FakeBackend = self.world.fresh_backend()
        self.runner = asyncio.Runner()
        self.patches = pytest.MonkeyPatch()
        for module in (launch, patience, reconciling):
            self.patches.setattr(module, "ask", ask_at_once)

    def teardown(self) -> None:
        self.settle()
        self.patches.undo()
        self.runner.close()
        self.world.store.close()
        self.other.store.close()
        shutil.rmtree(self.folder)

    @initialize(fault=START_FAULTS, is_late=st.booleans())
    def begin(self, fault: tuple[str, str], is_late: bool) -> None:
        """Another deployment runs something in the same place, and a first start meets a fault."""
        self.other = World(self.folder / "other", empty())
        self.other.place, self.other.clock = self.place, self.clock
        self.others_hub = FakeBackend(place=self.place, deployment="other")
        admission = self.other.admitted()
        started = launch_of(admission)
        object.__setattr__(started, "deployment", "other")
        self.runner.run(launch.run(self.other.store, self.others_hub, started, self.clock))
        self.others = set(self.place.resources)
        self.press_start("ione", fault, is_late, True)

    # What happens.

    @rule(server=SERVERS, fault=START_FAULTS, is_late=st.booleans(), is_run=st.integers(0, 5).map(bool))
    def press_start(self, server: str, fault: tuple[str, str], is_late: bool, is_run: bool) -> None:
        """A user presses start, twice; the Hub is killed right after the row, or goes on to run it."""
        old = self.world.store.instances.named(self.alice.id, server)
        kept = [row for row in self.rows() if row.want is not Want.GONE and row.phase is not Phase.GONE]
        try:
            admission = self.world.admitted(server, self.alice)
        except Refused as refused:
            if old is None:
                assert (refused.rule, len(kept)) == ("quota", QUOTA)
            else:
                assert (refused.rule, old.may_start) == ("already", False)
            return
        assert old.may_start if old else len(kept) < QUOTA
        assert admission.instance.attempt not in self.attempts
        self.attempts.append(admission.instance.attempt)
        with pytest.raises(Refused):
            self.world.admitted(server, self.alice)
        if is_run:
            self.plan(fault, is_late)
            self.go(launch.run(self.world.store, self.hub, launch_of(admission), self.clock))
        else:
            self.restart()

    @rule(server=SERVERS, fault=END_FAULTS, flow=st.sampled_from([end.stop, end.delete]), is_only_wish=st.booleans())
    def press_end(
        self, server: str, fault: tuple[str, str], flow: Callable[..., Coroutine[Any, Any, None]], is_only_wish: bool
    ) -> None:
        """A user presses stop or delete; sometimes the portal commits the wish, and the Hub never hears of it."""
        row = self.world.store.instances.named(self.alice.id, server)
        if row is None:
            return
        if is_only_wish:
            self.world.store.instances.wish(row.id, Want.OFF if flow is end.stop else Want.GONE, self.clock())
        else:
            self.plan(fault, False)
            self.go(flow(self.world.store, self.hub, row.id, self.clock))

    @rule(
        server=SERVERS,
        is_late=st.booleans(),
        flow=st.sampled_from([end.stop, end.delete]),
        point=st.sampled_from(["files", "created", "process", "answers"]),
        turns=st.integers(0, 8),
    )
    def end_during_a_start(
        self, server: str, is_late: bool, flow: Callable[..., Coroutine[Any, Any, None]], point: str, turns: int
    ) -> None:
        """The wish comes while a start waits, and both go on a little later."""
        try:
            admission = self.world.admitted(server, self.alice)
        except Refused:
            return
        self.attempts.append(admission.instance.attempt)
        self.plan(NO_FAULT, is_late)
        self.go(self._end_during(admission, flow, point, turns))

    async def _end_during(
        self,
        admission: launch.Admission,
        flow: Callable[..., Coroutine[Any, Any, None]],
        point: str,
        turns: int,
    ) -> None:
        store = self.world.store
        gate = self.place.waits[point] = asyncio.Event()
        run = asyncio.create_task(launch.run(store, self.hub, launch_of(admission), self.clock))
        for _ in range(50):
            await asyncio.sleep(0)
        asking = asyncio.create_task(flow(store, self.hub, admission.instance.id, self.clock))
        for _ in range(turns):
            await asyncio.sleep(0)
        gate.set()
        results = await asyncio.gather(run, asking, return_exceptions=True)
        assert all(isinstance(result, VisahubError | str | None) for result in results), results

    @rule(
        faults=st.lists(st.tuples(ROUND_FAULTS, START_FAULTS), min_size=1, max_size=4), seconds=st.sampled_from([6, 11])
    )
    def rounds(self, faults: list[tuple[tuple[str, str], tuple[str, str]]], seconds: int) -> None:
        for fault, fault_again in faults:
            self.forward(seconds)
            self.round_(fault, fault_again)
        self.the_others_do_a_round()

    def round_(self, fault: tuple[str, str], fault_again: tuple[str, str]) -> None:
        """A round, after which the Hub starts again what only it can."""
        before = {row.id: row for row in self.rows()}
        there = {key: resource.is_live for key, resource in self.place.resources.items()}
        self.plan(fault, False)
        report = self.go(reconcile(self.world.store, {"fake": self.hub}, self.clock, grace_seconds=GRACE_SECONDS))
        if report is None:
            return
        after = {row.id: row for row in self.rows()}
        assert report.unavailable == (["fake"] if fault == ("cannot ask", "look") else [])
        if report.unavailable:
            assert after == before
            assert {key: resource.is_live for key, resource in self.place.resources.items()} == there
            assert not report.done
        for row in before.values():
            if row.want is Want.ON and after[row.id].want is not Want.ON:
                assert after[row.id].sentence, "what was wanted is ended only with a reason"
        for row in report.retry:
            self.plan(fault_again, False)
            self.start_again(row)

    @rule(server=SERVERS, how=st.sampled_from(["vanish", "fail"]))
    def ends_by_itself(self, server: str, how: str) -> None:
        row = self.world.store.instances.named(self.alice.id, server)
        if row is not None:
            getattr(self.place, how)(row.attempt)

    def the_others_do_a_round(self) -> None:
        there = dict(self.place.resources)
        report = self.runner.run(reconcile(self.other.store, {"fake": self.others_hub}, self.clock, grace_seconds=30))
        assert report == Report()
        assert self.place.resources == there

    def settle(self) -> None:
        """Nothing fails any more: two rounds with what the Hub starts again, and all is as wanted."""
        self.plan(NO_FAULT, False)
        for _ in range(2):
            self.forward(31)
            report = self.healthy_round()
            for row in report.retry:
                self.start_again(row)
        self.forward(31)
        self.healthy_round()
        rows = {row.attempt: row for row in self.rows()}
        wanted = [row.attempt for row in rows.values() if row.phase is Phase.READY]
        assert max(Counter(one.instance_id for one in self.place.live("visahub")).values(), default=0) <= 1
        assert sorted(resource.attempt for resource in self.place.live("visahub")) == sorted(wanted)
        for row in rows.values():
            assert row.phase in {Phase.READY, Phase.STOPPED, Phase.ERROR, Phase.GONE}, row
            assert (row.want is Want.ON) == (row.phase is Phase.READY)
            assert (row.want is Want.GONE) == (row.phase is Phase.GONE)
        assert not [key for key in self.place.resources if self.attempt_of(key) in self.gone()]
        there = dict(self.place.resources)
        assert self.healthy_round() == Report()
        assert {row.attempt: row for row in self.rows()} == rows
        assert self.place.resources == there

    # What must always hold.

    @invariant()
    def one_resource_for_each_attempt(self) -> None:
        assert all(count == 1 for count in Counter(one.attempt for one in self.place.live()).values())

    @invariant()
    def the_others_are_untouched(self) -> None:
        assert self.others <= {one.id for one in self.place.live("other")}

    @invariant()
    def what_waits_has_a_deadline(self) -> None:
        assert all(row.deadline is not None for row in self.rows() if row.phase.is_waiting)

    @invariant()
    def a_row_points_to_its_own_resource(self) -> None:
        for row in self.rows():
            resource = self.place.resources.get(row.state.get("resource", ""))
            assert resource is None or resource.attempt == row.attempt

    @invariant()
    def events_tell_the_phase(self) -> None:
        for row in self.rows():
            told = [KINDS[one.kind] for one in self.world.store.instances.events(row.id) if one.kind in KINDS]
            assert told[-1] is row.phase

    @invariant()
    def events_tell_the_wish(self) -> None:
        """Whatever changed what is wanted has left an event that says so."""
        for row in self.rows():
            want = None
            for one in self.world.store.instances.events(row.id):
                if one.kind == "starting":
                    want = Want.ON
                elif one.kind == "wished":
                    want = Want(one.key)
                elif one.kind == "deleted":
                    want = Want.GONE
                elif one.kind in {"error", "stopped"} and want is Want.ON:
                    want = Want.OFF
            assert want is row.want

    @invariant()
    def the_quota_holds(self) -> None:
        assert len([row for row in self.rows() if row.want is not Want.GONE]) <= QUOTA

    # How it is played.

    def rows(self) -> list[Instance]:
        """Gives all rows that ever were, gone ones too."""
        found = self.world.store.instances.by_attempts(self.attempts)
        return sorted(found.values(), key=lambda row: row.id)

    def gone(self) -> set[str]:
        return {row.attempt for row in self.rows() if row.phase is Phase.GONE}

    def attempt_of(self, key: str) -> str:
        return self.place.resources[key].attempt

    def plan(self, fault: tuple[str, str], is_late: bool) -> None:
        """Forgets the faults before, and plans one."""
        kind, where = fault
        self.place.unavailable = {where} if kind == "cannot ask" else set()
        self.place.kills = {where} if kind == "kill" else set()
        self.place.failures = {where: Failed("It failed.")} if kind == "fail" else {}
        self.place.lost_answers = int(fault == ("lose an answer", "start"))
        self.place.lost_stops = int(fault == ("lose an answer", "stop"))
        self.place.listing_lag = 10**6 if is_late else 0
        self.place.waits = {}
        for name, planned in self.faults.items():
            planned.planned = kind if "store" in kind and name == where else ""

    def go(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Lets the Hub work; gives None when it was refused, failed or was killed."""
        try:
            return self.runner.run(work)
        except VisahubError:
            return None
        except Killed:
            self.restart()
            return None
        finally:
            self.plan(NO_FAULT, False)
            for key in self.place.resources:
                self.born.setdefault(key, self.clock())

    def restart(self) -> None:
        """The Hub's process is killed, with all that it was doing; another one begins."""
        self.hub.is_killed = True
        self.runner.close()
        self.runner = asyncio.Runner()
        self.hub = self.world.fresh_backend()

    def healthy_round(self) -> Report:
        report: Report = self.runner.run(
            reconcile(self.world.store, {"fake": self.hub}, self.clock, grace_seconds=GRACE_SECONDS)
        )
        assert not report.unknown
        return report

    def start_again(self, row: Instance) -> None:
        """Does what the Hub does with `Report.retry`."""
        choice = launch.choose(self.world.store, self.world.menu, self.alice, row.request, self.clock.today)
        admission = launch.Admission(row, self.alice, choice.experiments, choice.environment, choice.hardware)
        self.go(launch.run(self.world.store, self.hub, launch_of(admission), self.clock))

    def forward(self, seconds: float) -> None:
        """Lets time pass, after which the place lists what is old enough."""
        self.clock.forward(seconds=seconds)
        for key, born in self.born.items():
            if key in self.place.resources and (self.clock() - born).total_seconds() >= LAG_SECONDS:
                self.place.resources[key].unseen_looks = 0


Facility.TestCase.settings = settings(
    max_examples=80,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestFacility = Facility.TestCase
