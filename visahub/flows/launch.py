"""A request becomes an admitted launch, and that a running instance; called by `hub/`, its rules by `portal/`, too."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

from ..backends.base import Backend
from ..model.account import Account
from ..model.errors import Failed, Refused, Unavailable, VisahubError
from ..model.experiment import Experiment
from ..model.instance import Instance, Phase, State, Want
from ..model.launch import Launch, Step
from ..model.logline import masked, secrets_of
from ..model.offer import Environment, Hardware
from ..model.policy import Decision, may_choose, may_take
from ..model.request import StartRequest
from ..store.database import Store, ask
from .patience import patiently, undisturbed

Clock = Callable[[], datetime]

log = logging.getLogger(__name__)

# How soon a start that waits for its next step looks whether it is still wanted; later up to four times as seldom,
# since hundreds of machines that boot must not keep the database busy.
WATCH_SECONDS = 0.5
# A backend that does not answer must not hold a failed start for ever; the reconciliation ends what is left.
CLEAN_UP_SECONDS = 60.0


@dataclass(frozen=True)
class Menu:
    """All that is offered here, whoever asks, in the order in which it is shown."""

    environments: tuple[Environment, ...]
    hardware: tuple[Hardware, ...]

    def environment(self, key: str) -> Environment | None:
        return next((one for one in self.environments if one.id == key), None)

    def size(self, key: str) -> Hardware | None:
        return next((one for one in self.hardware if one.id == key), None)


@dataclass(frozen=True)
class Choice:
    """What a request means: every id found and every rule passed."""

    experiments: tuple[Experiment, ...]
    environment: Environment
    hardware: Hardware


@dataclass(frozen=True)
class Admission:
    """A start that may happen: its row is committed, with a new attempt."""

    instance: Instance
    account: Account
    experiments: tuple[Experiment, ...]
    environment: Environment
    hardware: Hardware


def choose(store: Store, menu: Menu, account: Account, request: StartRequest, today: date) -> Choice:
    """Looks up what was chosen and applies every rule to it; writes nothing, raises Refused with the rule."""
    experiments = _experiments(store, account, request, today)
    environment = menu.environment(request.environment)
    if environment is None:
        raise _unknown("environment", request.environment)
    hardware = menu.size(request.hardware)
    if hardware is None:
        raise _unknown("hardware", request.hardware)
    _require(may_take(account, environment.restriction, experiments), f"{environment.name}: ")
    _require(may_take(account, hardware.restriction, experiments), f"{hardware.name}: ")
    if hardware.backend not in environment.images:
        raise Refused(
            f"{environment.name} cannot run on {hardware.name} ({hardware.place}). "
            "Choose another hardware or another environment.",
            rule="environment-not-there",
            status=422,
        )
    return Choice(experiments, environment, hardware)


def admit(
    store: Store,
    menu: Menu,
    account: Account,
    server_name: str,
    request: StartRequest,
    now: datetime,
    deadline_seconds: float,
) -> Admission:
    """Decides about a start and commits its row with a new attempt; after Refused or Unavailable nothing has changed.

    Today is the date of `now` in its own time zone.
    """
    choice = choose(store, menu, account, request, now.date())
    instance = store.instances.admit(
        account=account,
        server_name=server_name,
        request=request,
        backend=choice.hardware.backend,
        now=now,
        deadline=now + timedelta(seconds=deadline_seconds),
    )
    # The row is committed: a preference that cannot be kept must not turn the admission into a refusal.
    with suppress(Unavailable):
        store.preferences.put(account.id, {"last": request.as_options()})
    return Admission(instance, account, choice.experiments, choice.environment, choice.hardware)


def _experiments(store: Store, account: Account, request: StartRequest, today: date) -> tuple[Experiment, ...]:
    if not request.experiments:
        if account.may_start_without_experiment:
            return ()
        raise Refused(
            "An instance needs at least one experiment. Choose one of yours or one with open data.",
            rule="no-experiment",
            status=422,
        )
    found = store.experiments.get(request.experiments)
    for key in request.experiments:
        if key not in found:
            raise _unknown("experiment", key)
        _require(may_choose(account, found[key], today))
    return tuple(found[key] for key in request.experiments)


def _require(decision: Decision, opening: str = "") -> None:
    if not decision.allowed:
        raise Refused(opening + decision.sentence, rule=decision.rule)


def _unknown(kind: str, key: str) -> Refused:
    return Refused(
        f"There is no {kind} {key[:80]!a} here, or not any more. Choose another one on the form.",
        rule=f"unknown-{kind}",
        status=422,
    )


@dataclass
class _Start:
    """One start under way; `state` is the newest that the backend gave, saved or not."""

    store: Store
    backend: Backend
    launch: Launch
    clock: Clock
    passed: Callable[[Step], None]
    state: State = field(default_factory=dict)
    address: str = ""


def _unheard(step: Step) -> None:
    """Stands for somebody who wants to know of the steps."""


async def run(
    store: Store, backend: Backend, launch: Launch, clock: Clock, passed: Callable[[Step], None] = _unheard
) -> str:
    """Starts an admitted launch and gives its address; saves every step before the next one begins.

    After any failure what was begun is stopped and the row says why. A wish `off` or `gone` that comes meanwhile, or
    the deadline, ends the start the same way. Raises Refused ("superseded" for a wish), Unavailable or Failed; a
    defect becomes Failed with a reference that the log has, too. A cancellation cleans up nothing. `passed` hears of
    each step when it is saved.
    """
    start = _Start(store, backend, launch, clock, passed)
    try:
        await _go(start)
    except VisahubError as error:
        await undisturbed(_clean_up(start, error))
        raise
    # Not BaseException: only the end of the process cancels a start. Orderly or not, the row and its attempt are then
    # for the next process, which goes on with them.
    except Exception as error:
        told = _told(launch, error)
        await undisturbed(_clean_up(start, told))
        raise told from error
    return start.address


async def _go(start: _Start) -> None:
    launch, instances = start.launch, start.store.instances
    steps = start.backend.start(launch)
    try:
        while (step := await _next(start, steps)) is not None:
            # First remembered here, then saved: when saving fails, the clean-up still knows what was made.
            if step.state is not None:
                start.state = step.state
            start.address = step.address or start.address
            await patiently(instances.step, launch.instance_id, launch.attempt, step, start.clock())
            start.passed(step)
    finally:
        close = getattr(steps, "aclose", None)
        if close is not None:
            await close()
    if not start.address:
        raise Failed("The instance was started, but no address of it is known. Try again, or tell the operators.")
    await patiently(instances.move, launch.instance_id, Phase.READY, start.clock(), attempt=launch.attempt)


async def _next(start: _Start, steps: AsyncIterator[Step]) -> Step | None:
    """Waits for the next step, None after the last. It can take hours: looks meanwhile if the start is still wanted."""
    waiting = asyncio.ensure_future(_following(steps))
    try:
        pause = WATCH_SECONDS
        while not (await asyncio.wait({waiting}, timeout=pause))[0]:
            await _check(start)
            pause = min(pause * 1.2, 4 * WATCH_SECONDS)
        return waiting.result()
    finally:
        if not waiting.done():
            waiting.cancel()
            await asyncio.wait({waiting}, timeout=CLEAN_UP_SECONDS)


async def _following(steps: AsyncIterator[Step]) -> Step | None:
    return await anext(steps, None)


async def _check(start: _Start) -> None:
    """Raises when a start is not wanted any more or has taken too long; "could not ask" changes nothing."""
    try:
        row = await ask(start.store.instances.get, start.launch.instance_id)
    except Unavailable:
        return
    if row is None or row.attempt != start.launch.attempt or row.want is not Want.ON:
        raise Refused(
            f"The start of {start.launch.name} was ended because it is not wanted any more.",
            rule="superseded",
            status=409,
        )
    if row.deadline is not None and row.deadline < start.clock():
        raise too_late(row)


def too_late(instance: Instance) -> Failed:
    """Says that a start ran into its deadline."""
    began = instance.started or instance.created
    minutes = round((instance.deadline - began).total_seconds() / 60) if instance.deadline else 0
    allowed = "allowed" if minutes < 1 else f"{minutes} minute{'' if minutes == 1 else 's'}"
    return Failed(
        f"The start took longer than {allowed} and was given up. Start it again, or choose another hardware; "
        "your files are kept."
    )


def _told(launch: Launch, error: Exception) -> Failed:
    reference = secrets.token_hex(4)
    log.error("%s: the start broke off, reference %s", launch.instance_id, reference, exc_info=error)
    return Failed(
        f"The start broke off because of a fault in the service (reference {reference}). Start it again; "
        "if it happens again, tell the operators the reference."
    )


async def _clean_up(start: _Start, error: VisahubError) -> None:
    """Ends what was begun, then says in the row what happened; what cannot be done now is left to `reconcile`."""
    launch = start.launch
    row: Instance | None = None
    with suppress(Unavailable):
        row = await ask(_own_row, start)
    is_gone_wanted = row is not None and row.want is Want.GONE
    state = start.state or (row.state if row else {})
    try:
        async with asyncio.timeout(CLEAN_UP_SECONDS):
            await (start.backend.delete if is_gone_wanted else start.backend.stop)(launch.attempt, state)
    except Exception as problem:
        log.warning("%s: what a failed start left could not be ended yet: %s", launch.instance_id, problem)
        if is_gone_wanted:
            return
    try:
        await patiently(_record, start, error, is_gone_wanted)
    except VisahubError as problem:
        # Refused: somebody else has moved the row meanwhile. Unavailable: the next rounds come to the same end.
        log.info("%s: the end of a failed start was not recorded: %s", launch.instance_id, problem)


def _own_row(start: _Start) -> Instance | None:
    """Gives the row while it belongs to this start."""
    row = start.store.instances.get(start.launch.instance_id)
    return row if row is not None and row.attempt == start.launch.attempt else None


def _record(start: _Start, error: VisahubError, is_deleted: bool) -> None:
    """Says in the row how the start ended; right when called twice. Raises Refused when somebody else has moved it."""
    row = _own_row(start)
    if row is None:
        return
    move, now, attempt = start.store.instances.move, start.clock(), row.attempt
    if isinstance(error, Failed) and error.log:
        # What the server printed last may be its own environment.
        start.store.instances.note(row.id, masked(error.log, secrets_of(start.launch.environ)), now)
    if row.want is Want.ON:
        # Nothing is wanted of a failed start: its owner says so by starting it again.
        move(row.id, Phase.ERROR, now, attempt=attempt, sentence=error.sentence, address="", want=Want.OFF)
    elif row.want is Want.OFF:
        move(row.id, Phase.STOPPED, now, attempt=attempt, address="")
    elif is_deleted:
        move(row.id, Phase.DELETING, now, attempt=attempt, address="")
        move(row.id, Phase.GONE, now, attempt=attempt)
