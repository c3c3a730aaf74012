"""What is wanted, what the rows say and what backends see are brought together; called by the rounds in `hub/`."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from ..backends.base import Backend
from ..model.errors import Unavailable, VisahubError
from ..model.instance import Instance, Phase, Want
from ..model.jumps import LARGEST
from ..model.launch import Condition, Look, Seen
from ..store.database import Store, ask
from . import end
from .launch import too_late

log = logging.getLogger(__name__)

Clock = Callable[[], datetime]

_LOOK_SECONDS = 60.0
_ACT_SECONDS = 60.0
# What the log has been told of already: it stays until an operator decides, and every round sees it.
_told: set[str] = set()
# How many instances are ended at the same time, so that one that hangs does not hold up the others.
_AT_ONCE = 8


class Action(StrEnum):
    """What is to be done about one instance."""

    NOTHING = "nothing"
    RETRY = "retry"  # wanted and not there: start it again under the same attempt
    ADOPT = "adopt"  # wanted and there, but its start was interrupted: start it again, the backend adopts it
    LOST = "lost"  # it was ready and has ended by itself
    GIVE_UP = "give-up"  # its deadline has passed, or it failed before it was ready
    STOP_STRAY = "stop-stray"  # there and not wanted
    FINISH_STOP = "finish-stop"
    FINISH_DELETE = "finish-delete"


@dataclass
class Report:
    """What one round found and did. `retry` is what only the Hub can start again; it knows which of it is under way."""

    retry: list[Instance] = field(default_factory=list)
    # Instances (of a stray: its attempt) and what was done about them.
    done: list[tuple[str, Action]] = field(default_factory=list)
    # Attempts that run outside and that no row ever had. They are left alone, and an operator should look at them.
    unknown: list[str] = field(default_factory=list)
    # Backends that could not be asked: nothing of theirs was changed.
    unavailable: list[str] = field(default_factory=list)
    # Every instance that is not gone, as this round read it, before it did anything.
    rows: list[Instance] = field(default_factory=list, compare=False, repr=False)
    # How long each backend took to answer or to fail, in seconds.
    seconds: dict[str, float] = field(default_factory=dict, compare=False)


def decide(instance: Instance | None, condition: Condition | None, now: datetime, grace_seconds: float) -> Action:
    """Decides from a row and from what its backend sees of the row's attempt; None means "asked, and not there".

    Never call it for a backend that could not be asked: that changes nothing. For `grace_seconds` after a change of
    the row nothing is done, since somebody is at work on it or the backend's list is late.
    """
    is_live = condition is not None and condition.is_live
    if instance is None:
        is_stopped = condition is None or condition.seen is Seen.STOPPED
        return Action.NOTHING if is_stopped else Action.STOP_STRAY
    # A clock that was set back by days must not make a row untouchable until its time comes again.
    if -LARGEST < now - instance.changed < timedelta(seconds=grace_seconds):
        return Action.NOTHING
    if instance.phase is Phase.GONE:
        return Action.FINISH_DELETE if condition is not None else Action.NOTHING
    if instance.want is Want.GONE or instance.phase is Phase.DELETING:
        return Action.FINISH_DELETE
    if instance.phase in {Phase.STOPPED, Phase.ERROR}:
        return Action.STOP_STRAY if is_live else Action.NOTHING
    if instance.want is Want.OFF or instance.phase is Phase.STOPPING:
        return Action.FINISH_STOP
    if instance.phase is Phase.READY:
        return Action.NOTHING if is_live else Action.LOST
    return _decide_starting(instance, condition, now, is_live=is_live)


def _decide_starting(instance: Instance, condition: Condition | None, now: datetime, *, is_live: bool) -> Action:
    if instance.deadline is not None and instance.deadline < now:
        return Action.GIVE_UP
    if condition is None:
        return Action.RETRY
    return Action.ADOPT if is_live else Action.GIVE_UP


async def reconcile(
    store: Store, backends: Mapping[str, Backend], clock: Clock, *, grace_seconds: float = 30
) -> Report:
    """Does one round: one look at each backend, then what the rows ask for. A second round at once changes nothing.

    A backend that cannot be asked changes nothing for its rows. Raises Unavailable when the database is away.
    """
    report = Report()
    # The look comes before the rows: whatever it shows had its row committed before.
    looks = await _looks(backends, report)
    report.rows = await ask(store.instances.live)
    rows = {row.attempt: row for row in report.rows}
    work: list[Coroutine[Any, Any, None]] = []
    for row in rows.values():
        if row.backend in looks:
            condition = looks[row.backend].get(row.attempt)
            action = decide(row, condition, clock(), grace_seconds)
            work += _work(store, backends[row.backend], row, condition, action, clock, report)
    for backend_id, look in looks.items():
        others = {attempt: condition for attempt, condition in look.items() if attempt not in rows}
        if others:
            work += await _strays(store, backends[backend_id], others, clock(), grace_seconds, report)
    await _together(work)
    return report


async def _looks(backends: Mapping[str, Backend], report: Report) -> dict[str, Look]:
    answers = await asyncio.gather(*(_look(backend_id, backend, report) for backend_id, backend in backends.items()))
    looks = dict(zip(backends, answers, strict=True))
    report.unavailable += [backend_id for backend_id, look in looks.items() if look is None]
    return {backend_id: look for backend_id, look in looks.items() if look is not None}


async def _look(backend_id: str, backend: Backend, report: Report) -> Look | None:
    began = time.monotonic()
    try:
        async with asyncio.timeout(_LOOK_SECONDS):
            return await backend.look()
    except (Unavailable, TimeoutError) as error:
        log.warning("%s cannot be asked what runs; nothing of it is changed: %s", backend_id, error)
    except Exception:
        # A defect of one backend is "could not ask", too: the others' instances must not wait for its repair.
        log.exception("Asking %s what runs failed; nothing of it is changed", backend_id)
    finally:
        report.seconds[backend_id] = time.monotonic() - began
    return None


def _work(
    store: Store,
    backend: Backend,
    row: Instance,
    condition: Condition | None,
    action: Action,
    clock: Clock,
    report: Report,
) -> list[Coroutine[Any, Any, None]]:
    """Gives what is to be done about one row, if anything, and enters it into the report."""
    if action is Action.NOTHING:
        return []
    report.done.append((row.id, action))
    state = condition.state if condition else row.state
    if action in {Action.RETRY, Action.ADOPT}:
        report.retry.append(row)
        return []
    log.info("%s (%s, wanted %s): %s", row.id, row.phase, row.want, action)
    if action is Action.FINISH_STOP:
        return [end.finish_stop(store, backend, row, clock)]
    if action is Action.FINISH_DELETE:
        return [end.finish_delete(store, backend, row, clock)]
    if action is Action.STOP_STRAY:
        return [backend.stop(row.attempt, state)]
    return [_over(store, backend, row, condition, action, clock)]


async def _over(
    store: Store, backend: Backend, row: Instance, condition: Condition | None, action: Action, clock: Clock
) -> None:
    """Says in the row that an instance ended or failed by itself, then ends what is left of it.

    The row comes first, so that nothing is ever ended without an event that says why. What a crash between the two
    leaves is a stray for the next round.
    """
    phase, sentence = _said(row, condition, action)
    ended: dict[str, Any] = {"sentence": sentence, "address": "", "want": Want.OFF}
    await ask(store.instances.move, row.id, phase, clock(), attempt=row.attempt, **ended)
    await backend.stop(row.attempt, condition.state if condition else row.state)


def _said(row: Instance, condition: Condition | None, action: Action) -> tuple[Phase, str]:
    reason = condition.sentence if condition else ""
    if action is Action.LOST:
        if condition is not None and condition.seen is Seen.FAILED:
            return Phase.ERROR, _joined("It broke down.", reason, "Start it again; your files are kept.")
        return Phase.STOPPED, _joined("It ended by itself.", reason, "Start it again; your files are kept.")
    if condition is not None and condition.seen in {Seen.FAILED, Seen.STOPPED}:
        return Phase.ERROR, _joined("It ended before it was ready.", reason, "Start it again; your files are kept.")
    return Phase.ERROR, too_late(row).sentence


def _joined(*sentences: str) -> str:
    return " ".join(sentence for sentence in sentences if sentence)


async def _strays(
    store: Store,
    backend: Backend,
    others: Look,
    now: datetime,
    grace_seconds: float,
    report: Report,
) -> list[Coroutine[Any, Any, None]]:
    """Gives what is to be done about resources whose attempt no living row carries.

    An attempt that no row ever had is only reported: it means that the database is older than what runs, such as a
    copy from yesterday, or that two visahubs use one tag.
    """
    gone = await ask(store.instances.by_attempts, others)
    known = await ask(store.instances.known_attempts, others)
    work: list[Coroutine[Any, Any, None]] = []
    for attempt, condition in others.items():
        action = decide(gone.get(attempt), condition, now, grace_seconds)
        if action is Action.NOTHING:
            continue
        if attempt not in known:
            if attempt not in _told:
                log.warning("Attempt %s runs and no row knows it: it is left alone. See: visahub strays list", attempt)
                _told.add(attempt)
            report.unknown.append(attempt)
            continue
        report.done.append((attempt, action))
        log.info("attempt %s, of an instance that is gone or was started again: %s", attempt, action)
        # An earlier attempt is only stopped: the place may keep the instance's disk under it.
        remove = backend.delete if action is Action.FINISH_DELETE else backend.stop
        work.append(remove(attempt, condition.state))
    return work


async def _together(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    places = asyncio.Semaphore(_AT_ONCE)
    await asyncio.gather(*(_guarded(one, places) for one in work))


async def _guarded(one: Coroutine[Any, Any, None], places: asyncio.Semaphore) -> None:
    """Does one piece of work; whatever fails is left to the next round, and the others go on."""
    async with places:
        try:
            async with asyncio.timeout(_ACT_SECONDS):
                await one
        except (VisahubError, TimeoutError) as error:
            log.warning("Left for the next round: %s", error)
        except Exception:
            log.exception("A piece of a round failed")
