"""What the Hub's own /hub/metrics tells of visahub besides JupyterHub's numbers; counted by the modules of `hub/`."""

from __future__ import annotations

import time
from collections.abc import Iterable

from prometheus_client import Counter, Gauge, Histogram

from ..flows.reconcile import Report
from ..model.errors import Failed, Refused, Unavailable
from ..model.launch import Step
from ..store import asking

_MINUTES = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)
OUTCOMES = ("ready", "failed", "unavailable", "unwanted", "interrupted", "defect")

STARTS = Counter("visahub_starts", "Starts that ended, by place and how they ended.", ["backend", "outcome"])
STEPS = Histogram(
    "visahub_start_step_duration_seconds",
    "How long each step of a start took, by place and step.",
    ["backend", "step"],
    buckets=_MINUTES,
)
START_SECONDS = Histogram(
    "visahub_start_duration_seconds",
    "How long starts took that became ready, by place.",
    ["backend"],
    buckets=_MINUTES,
)
LOOKS = Histogram("visahub_look_duration_seconds", "How long a place took to say what runs there.", ["backend"])
LOOK_FAILURES = Counter("visahub_look_failures", "Looks at a place that could not be made.", ["backend"])
IS_UP = Gauge("visahub_backend_up", "Whether a place answered the last look: 1 for yes, 0 for no.", ["backend"])
ROUND_SECONDS = Histogram("visahub_round_duration_seconds", "How long a round of reconciliation took in the Hub.")
ACTIONS = Counter("visahub_round_actions", "What rounds did about instances, by action.", ["action"])
UNKNOWN = Gauge("visahub_unknown_strays", "What runs outside under our tag and no row ever knew, at the last round.")
ROUTES = Counter("visahub_routes_restored", "Routes that the proxy had lost and rounds have set again.")
LOGINS = Counter("visahub_logins", "Logins by how they ended: in, failed, throttled or away.", ["outcome"])
REFUSALS = Counter("visahub_refusals", "What was refused, by the rule that refused it.", ["rule"])
QUESTIONS = Histogram(
    "visahub_database_question_duration_seconds",
    "How long questions to visahub's database took, by whether an answer came in time.",
    ["outcome"],
)


def expect(backends: Iterable[str]) -> None:
    """Shows zeros before anything has happened, so that alerts can tell "none" from "not measured"."""
    for backend in backends:
        for outcome in OUTCOMES:
            STARTS.labels(backend, outcome)
        LOOK_FAILURES.labels(backend)
        LOOKS.labels(backend)
    for outcome in ("in", "failed", "throttled", "away"):
        LOGINS.labels(outcome)
    asking.observe(lambda seconds, outcome: QUESTIONS.labels(outcome).observe(seconds))


class Start:
    """Measures one start: call it with each step, and `ended` with what came of it."""

    def __init__(self, backend: str) -> None:
        self._backend = backend
        self._began = self._since = time.monotonic()
        self._step = ""

    def __call__(self, step: Step) -> None:
        """Notes that a step begins and the one before has ended."""
        now = time.monotonic()
        if self._step:
            STEPS.labels(self._backend, self._step).observe(now - self._since)
        self._step, self._since = step.key, now

    def ended(self, error: BaseException | None = None) -> None:
        STARTS.labels(self._backend, _outcome(error)).inc()
        if error is None:
            now = time.monotonic()
            STEPS.labels(self._backend, self._step).observe(now - self._since)
            START_SECONDS.labels(self._backend).observe(now - self._began)


def _outcome(error: BaseException | None) -> str:
    if error is None:
        return "ready"
    if isinstance(error, Failed):
        return "defect" if error.__cause__ is not None else "failed"
    if isinstance(error, Refused):
        return "unwanted"
    return "unavailable" if isinstance(error, Unavailable) else "interrupted"


def looked(backend: str, seconds: float, *, is_answered: bool) -> None:
    """Counts one look at a place."""
    LOOKS.labels(backend).observe(seconds)
    IS_UP.labels(backend).set(is_answered)
    if not is_answered:
        LOOK_FAILURES.labels(backend).inc()


def round_done(report: Report) -> None:
    """Counts what a round found and did."""
    for backend, seconds in report.seconds.items():
        looked(backend, seconds, is_answered=backend not in report.unavailable)
    for _, action in report.done:
        ACTIONS.labels(action.value).inc()
    UNKNOWN.set(len(report.unknown))
