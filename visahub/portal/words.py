"""How the pages say things: dates, reasons, states. Plain functions, used by the handlers and by the templates."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from ..model.account import Account, Role
from ..model.experiment import Experiment, TeamRole
from ..model.instance import Event, Instance, Phase, Want
from ..model.policy import Decision, may_choose, may_read, spoken


@dataclass(frozen=True)
class Row:
    """An experiment as one account sees it today: why it may be read, and whether it may be chosen."""

    experiment: Experiment
    reading: Decision
    choosing: Decision
    badge: str
    badge_kind: str
    others: str

    @property
    def label(self) -> str:
        return f"{self.experiment.proposal} {self.experiment.title}".strip()


def row(account: Account, experiment: Experiment, today: date) -> Row:
    """Evaluates the rules for one experiment and puts them into words."""
    reading = may_read(account, experiment, today)
    choosing = may_choose(account, experiment, today)
    badge, kind = _badge(reading, choosing)
    return Row(experiment, reading, choosing, badge, kind, _others(account, experiment))


def rows(account: Account, experiments: Collection[Experiment], today: date) -> list[Row]:
    return [row(account, experiment, today) for experiment in experiments]


def _badge(reading: Decision, choosing: Decision) -> tuple[str, str]:
    if reading.allowed and not choosing.allowed:
        return "no dates yet", "embargo"
    if reading.rule == "team":
        until = f", embargo until {reading.changes_on:%b %Y}" if reading.changes_on else ""
        return f"yours{until}", "mine"
    if reading.rule == "embargo" and reading.changes_on is not None:
        return f"embargo until {spoken(reading.changes_on)}", "embargo"
    return _BADGES.get(reading.rule, ("not yours", ""))


_BADGES = {
    "open-data": ("open data", "open"),
    "instrument-scientist": ("your instrument", "mine"),
    "admin": ("as administrator", "mine"),
    "withdrawn": ("withdrawn", ""),
}


def may_see_team(account: Account, experiment: Experiment) -> bool:
    """Tells whether somebody may read the names of a team: who reads open data only may not (visa.md B8)."""
    return (
        experiment.has_member(account.username)
        or account.has(Role.ADMIN)
        or experiment.instrument in account.instruments
    )


TEAM_ROLES = {
    TeamRole.PRINCIPAL_INVESTIGATOR: "principal investigator",
    TeamRole.MEMBER: "member",
    TeamRole.LOCAL_CONTACT: "local contact",
}


def _others(account: Account, experiment: Experiment) -> str:
    if not may_see_team(account, experiment):
        return ""
    names = [member.name or member.username for member in experiment.team if member.username != account.username]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def span(start: date | None, end: date | None) -> str:
    """Says a time span without repeating its month and year: 27 Sep to 30 Dec 2021."""
    if start is None or end is None:
        known = start or end
        return spoken(known) if known else "no dates yet"
    if start == end:
        return spoken(start)
    if start.year != end.year:
        return f"{spoken(start)} to {spoken(end)}"
    first = f"{start.day}" if start.month == end.month else f"{start.day} {start:%b}"
    return f"{first} to {spoken(end)}"


def since(when: datetime, now: datetime) -> str:
    """Says since when: just now, 3 hours ago, since yesterday, since Tuesday, since 3 May 2027."""
    days = (now.date() - when.date()).days
    if days <= 0:
        return ago(when, now)
    if days == 1:
        return "since yesterday"
    return f"since {when:%A}" if days < 7 else f"since {spoken(when.date())}"


def ago(when: datetime, now: datetime) -> str:
    """Says how long ago: just now, 5 minutes ago, 3 hours ago, on 3 May 2027."""
    passed = max(timedelta(), now - when)
    if passed < timedelta(minutes=1):
        return "just now"
    if passed < timedelta(hours=1):
        return _count(passed.seconds // 60, "minute")
    if passed < timedelta(days=1):
        return _count(passed.seconds // 3600, "hour")
    return _count(passed.days, "day") if passed < timedelta(days=14) else f"on {spoken(when.date())}"


def _count(number: int, unit: str) -> str:
    return f"{number} {unit}{'' if number == 1 else 's'} ago"


def duration(seconds: float) -> str:
    """Says a duration: 0.1 s, 6 s, 4 min, 2 h."""
    if seconds < 9.95:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.0f} h"


def units(text: str) -> str:
    """Keeps a number and its unit on one line."""
    return re.sub(r"(?<=\d) (?=(s|min|h|GB|MB|cores?|hours?|minutes?|seconds?)\b)", "\N{NO-BREAK SPACE}", text)


@dataclass(frozen=True)
class State:
    """What a card says about an instance: a dot, a strong sentence when it matters, and what follows."""

    dot: str
    strong: str
    text: str
    percent: int | None = None


def state(instance: Instance, step: Event | None, now: datetime) -> State:
    """Puts an instance's state into words; `step` is the current step while it starts."""
    phase = instance.phase
    if phase is Phase.DELETING or instance.want is Want.GONE:
        return State("wait moving", "", "Being deleted.")
    if phase is Phase.STOPPING or (phase in {Phase.STARTING, Phase.READY} and instance.want is Want.OFF):
        return State("wait moving", "", "Stopping. Its files are kept.")
    if phase is Phase.STARTING:
        text = f"Starting: {step.text}" if step else "Starting."
        return State("wait moving", "", text, step.percent or 0 if step else 0)
    if phase is Phase.READY and instance.sentence:
        return State("bad", "", instance.sentence)
    if phase is Phase.READY:
        used = f" Last used {ago(instance.last_activity, now)}." if instance.last_activity else ""
        return State("ok", "", f"Ready, started {ago(instance.ready or instance.changed, now)}.{used}")
    if phase is Phase.ERROR:
        return State("bad", could_not(instance), instance.sentence or "Nobody knows why. Look at its log.")
    if phase is Phase.GONE:
        return State("", "", "Deleted.")
    text = f"Stopped {since(instance.stopped or instance.changed, now)}. Its files are kept."
    return State("", "", f"{instance.sentence} {text}".strip())


def could_not(instance: Instance) -> str:
    """Says which way an instance is in error."""
    return "It stopped unexpectedly." if instance.ready else "It could not start."


def current_step(instance: Instance, events: Sequence[Event]) -> Event | None:
    """Gives the last step of the current attempt."""
    steps = [event for event in events if event.attempt == instance.attempt and event.kind == "step"]
    return steps[-1] if steps else None


def citation(entry: Row, account: Account) -> str:
    """Gives the text with which to cite an experiment; names only for those who may read the team."""
    experiment = entry.experiment
    names = [member.name for member in experiment.team if member.name and member.role is not TeamRole.LOCAL_CONTACT]
    who = "; ".join(names) if may_see_team(account, experiment) else ""
    year = f" ({experiment.end.year})" if experiment.end else ""
    where = f"https://doi.org/{experiment.doi}" if experiment.doi else experiment.url
    first = [f"{who}{year}", experiment.title] if who else [f"{experiment.title}{year}"]
    parts = [*first, f"{experiment.proposal}, {experiment.instrument}", where]
    return ". ".join(part for part in parts if part) + ("" if where else ".")
