"""Environments and hardware as cards: what may be taken, why not, and what is free now; used by `choosing.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import groupby
from operator import attrgetter

from ..model.account import Account
from ..model.experiment import Experiment
from ..model.offer import Environment, Hardware
from ..model.policy import Decision, may_take
from ..store.database import ask
from .base import Portal
from .cards import described
from .words import duration

# An older word of a backend is not shown as if it were of now.
FRESH = timedelta(minutes=2)
Snapshot = tuple[bool | None, str, datetime]


@dataclass(frozen=True, kw_only=True)
class OfferCard:
    """One card: greyed with a reason and its rule when it may not be taken."""

    item: Environment | Hardware
    is_allowed: bool
    reason: str = ""
    rule: str = ""
    is_chosen: bool = False
    dot: str = ""
    offer: str = ""
    is_free: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Offered:
    """All cards, and what is chosen among them in words."""

    environments: list[OfferCard]
    places: list[tuple[str, list[OfferCard]]]
    software: str = ""
    machine: str = ""
    machine_name: str = ""
    changed: str = ""
    soon: str = ""
    dot: str = ""


async def offered(
    portal: Portal, account: Account, experiments: Sequence[Experiment], environment_id: str, hardware_id: str
) -> Offered:
    """Evaluates every offer for an account with the experiments that it chose, and chooses one of each."""
    snapshots = await ask(portal.store.offers.all)
    environments = [_environment(account, item, experiments) for item in portal.menu.environments]
    environments, environment, changed = _choose(environments, environment_id)
    software = environment.item if environment else None
    hardware = [
        _hardware(account, item, experiments, software, snapshots.get(item.id), portal.now())
        for item in portal.menu.hardware
    ]
    hardware, machine, other = _choose(hardware, hardware_id)
    chosen = machine.item if machine else None
    usual = await ask(portal.store.instances.usual_seconds, chosen.backend) if isinstance(chosen, Hardware) else {}
    return Offered(
        environments=environments,
        places=[(place, list(group)) for place, group in groupby(_by_place(hardware), attrgetter("item.place"))],
        software=described(software, "") if software else "",
        machine=described(chosen, "") if chosen else "",
        machine_name=chosen.name if chosen else "",
        changed=f"{changed} {other}".strip(),
        soon=f"Usually ready in about {duration(sum(usual.values()))}." if usual else "",
        dot=machine.dot if machine else "",
    )


def _environment(account: Account, item: Environment, experiments: Sequence[Experiment]) -> OfferCard:
    decision = may_take(account, item.restriction, experiments)
    return OfferCard(item=item, is_allowed=decision.allowed, reason=decision.sentence, rule=decision.rule)


def _hardware(
    account: Account,
    item: Hardware,
    experiments: Sequence[Experiment],
    environment: Environment | Hardware | None,
    snapshot: Snapshot | None,
    now: datetime,
) -> OfferCard:
    decision = may_take(account, item.restriction, experiments)
    if decision.allowed and isinstance(environment, Environment) and item.backend not in environment.images:
        sentence = f"{environment.name} is not offered here. Choose another environment or another place."
        decision = Decision(False, "environment-not-there", sentence)
    is_free, sentence, at = snapshot or (None, "", now)
    if not sentence or now - at > FRESH:
        is_free, sentence = None, "not known whether it is free now"
    dot = "" if is_free is None else "ok" if is_free else "wait"
    return OfferCard(
        item=item,
        is_allowed=decision.allowed,
        reason=decision.sentence,
        rule=decision.rule,
        dot=dot,
        offer=sentence,
        is_free=is_free,
    )


def _choose(cards: list[OfferCard], wanted: str) -> tuple[list[OfferCard], OfferCard | None, str]:
    """Marks the wanted card, or else the first that may be taken, a free one before the others; says when it did."""
    allowed = [card for card in cards if card.is_allowed]
    chosen = next((card for card in allowed if card.item.id == wanted), None)
    changed = ""
    if chosen is None:
        chosen = next((card for card in allowed if card.is_free), allowed[0] if allowed else None)
        refused = next((card for card in cards if card.item.id == wanted), None)
        if refused is not None and chosen is not None:
            changed = f"{refused.item.name} cannot be taken with these choices, so {chosen.item.name} is chosen."
    if chosen is None:
        return cards, None, changed
    marked = replace(chosen, is_chosen=True)
    return [marked if card is chosen else card for card in cards], marked, changed


def _by_place(cards: list[OfferCard]) -> list[OfferCard]:
    """Brings the cards of one place together, places in the order of the settings."""
    order: dict[str, int] = {}
    for card in cards:
        order.setdefault(_place(card), len(order))
    return sorted(cards, key=lambda card: order[_place(card)])


def _place(card: OfferCard) -> str:
    return card.item.place if isinstance(card.item, Hardware) else ""
