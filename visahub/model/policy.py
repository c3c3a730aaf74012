"""One evaluation decides AND explains: who may read or take what, by which rule, and what would change it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import date

from .account import Account, Role
from .experiment import Experiment


@dataclass(frozen=True)
class Decision:
    """The answer of a rule. `sentence` is for the user; `changes_on` is the date on which the answer changes."""

    allowed: bool
    rule: str
    sentence: str
    changes_on: date | None = None


def spoken(day: date) -> str:
    """Says a date as people do: 3 May 2027."""
    return f"{day.day} {day:%b %Y}"


def may_read(account: Account, experiment: Experiment, today: date) -> Decision:
    """Decides whether an account may read an experiment's data today (visa.md B1, B8, B10).

    `store/search.py` states the same rule in SQL; a property test keeps the two equal.
    """
    title = experiment.proposal
    if experiment.withdrawn:
        return Decision(False, "withdrawn", f"{title} was withdrawn by the facility. Choose another experiment.")
    if experiment.has_member(account.username):
        return Decision(True, "team", _team_sentence(experiment, today), experiment.embargo_until(today))
    if account.has(Role.ADMIN):
        return Decision(True, "admin", "You may read this because you are an administrator.")
    if experiment.instrument in account.instruments:
        return Decision(
            True, "instrument-scientist", f"You may read this because you look after {experiment.instrument}."
        )
    if experiment.is_open(today):
        opened = experiment.public_at
        since = f" since {spoken(opened)}" if opened else ""
        return Decision(True, "open-data", f"You may read this because its data are open{since}.")
    until = experiment.embargo_until(today)
    if until is not None:
        return Decision(
            False,
            "embargo",
            f"Your access to {title} is under embargo until {spoken(until)}. "
            "Ask its principal investigator to add you to the team, or choose another experiment.",
            until,
        )
    return Decision(
        False,
        "not-in-team",
        f"You are not in the team of {title}. Ask its principal investigator to add you, or choose another experiment.",
    )


def _team_sentence(experiment: Experiment, today: date) -> str:
    until = experiment.embargo_until(today)
    if until is not None:
        return f"You may read this because you are in its team. Its data open to everybody on {spoken(until)}."
    return "You may read this because you are in its team."


def may_choose(account: Account, experiment: Experiment, today: date) -> Decision:
    """Decides whether an experiment may be chosen for an instance: readable, and with dates (visa.md B9)."""
    decision = may_read(account, experiment, today)
    if decision.allowed and (experiment.start is None or experiment.end is None):
        return Decision(
            False,
            "no-dates",
            f"{experiment.proposal} has no start or end date yet. It can be chosen once the user office has set them.",
        )
    return decision


@dataclass(frozen=True, kw_only=True)
class Restriction:
    """Who may take an environment or a hardware: nobody named means everybody; else ANY one match is enough.

    The OR of visa.md P4: a role or group of the account, an instrument that the account looks after, or the
    instrument of a chosen experiment. `sentence` says how one gets it.
    """

    roles: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    instruments: frozenset[str] = frozenset()
    sentence: str = ""

    @property
    def is_empty(self) -> bool:
        return not (self.roles or self.groups or self.instruments)


def may_take(account: Account, restriction: Restriction, experiments: Iterable[Experiment]) -> Decision:
    """Decides whether an account, with the experiments it chose, may take what carries the restriction."""
    if restriction.is_empty:
        return Decision(True, "everybody", "Everybody may take this.")
    if account.has(Role.ADMIN):
        return Decision(True, "admin", "You may take this because you are an administrator.")
    if not restriction.roles.isdisjoint(role.value for role in account.roles):
        return Decision(True, "role", "You may take this because of your role.")
    if not restriction.groups.isdisjoint(account.groups):
        return Decision(True, "group", "You may take this because of your group.")
    if not restriction.instruments.isdisjoint(account.instruments):
        return Decision(True, "instrument-scientist", "You may take this because you look after the instrument.")
    for experiment in experiments:
        if experiment.instrument in restriction.instruments:
            return Decision(True, "experiment", f"You may take this because of {experiment.proposal}.")
    return Decision(False, "restricted", restriction.sentence or _who(restriction))


def _who(restriction: Restriction) -> str:
    parts = []
    if restriction.instruments:
        parts.append(f"experiments at {_listed(restriction.instruments)}")
    if restriction.roles:
        parts.append(f"the role {_listed(restriction.roles)}")
    if restriction.groups:
        parts.append(f"the group {_listed(restriction.groups)}")
    return f"Only for {' or '.join(parts)}. Ask your local contact if you need it."


def _listed(names: Collection[str]) -> str:
    return ", ".join(sorted(names))
