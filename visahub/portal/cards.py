"""An instance as its owner sees it: its card, its links and what can be done now; used by pages, streams and API."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from urllib.parse import quote

from ..model.account import Account
from ..model.instance import Event, Instance, Phase, Want
from ..model.offer import Environment, Hardware
from ..store.database import ask
from . import words

if TYPE_CHECKING:
    from .base import Portal


@dataclass(frozen=True)
class Can:
    """What the owner can do now."""

    open: bool
    watch: bool
    start: bool
    stop: bool
    delete: bool


@dataclass(frozen=True, kw_only=True)
class Card:
    """All that the templates of an instance need."""

    instance: Instance
    state: words.State
    can: Can
    rows: list[words.Row]
    software: str
    machine: str
    lab: str
    desktop: str
    events: tuple[Event, ...] = ()


def can(instance: Instance) -> Can:
    wanted = instance.want is Want.ON
    return Can(
        open=wanted and instance.phase is Phase.READY,
        watch=wanted and instance.phase is Phase.STARTING,
        start=instance.may_start,
        stop=instance.may_stop,
        delete=instance.may_delete,
    )


def environment_of(portal: Portal, instance: Instance) -> Environment | None:
    return portal.menu.environment(instance.request.environment)


def hardware_of(portal: Portal, instance: Instance) -> Hardware | None:
    return portal.menu.size(instance.request.hardware)


def links(portal: Portal, instance: Instance) -> tuple[str, str]:
    """Gives the addresses of JupyterLab and of the desktop ("" when the environment has none)."""
    home = f"{portal.domains.of_user(instance.owner)}{portal.base_url}user/{quote(instance.owner)}/"
    lab = f"{home}{quote(instance.server_name)}/"
    environment = environment_of(portal, instance)
    return lab, f"{lab}desktop/" if environment is None or environment.has_desktop else ""


def described(item: Environment | Hardware | None, key: str) -> str:
    """Says what was chosen, also when it is not offered any more."""
    if item is None:
        return f"{key} (not offered any more)"
    if isinstance(item, Environment):
        return f"{item.name} {item.version}".strip()
    return words.units(f"{item.place}, {item.size.removesuffix(' memory')}")


async def cards(portal: Portal, account: Account, instances: Iterable[Instance]) -> list[Card]:
    """Makes the cards of an account's instances."""
    instances = list(instances)
    ids = {key for instance in instances for key in instance.request.experiments}
    experiments = await ask(portal.store.experiments.get, ids) if ids else {}
    made = []
    for instance in instances:
        events: list[Event] = []
        if instance.phase is Phase.STARTING:
            events = await ask(portal.store.instances.events, instance.id)
        chosen = [experiments[key] for key in instance.request.experiments if key in experiments]
        made.append(_card(portal, instance, events, words.rows(account, chosen, portal.today), portal.now()))
    return made


async def card(portal: Portal, account: Account, instance: Instance) -> Card:
    """Makes one card with all events."""
    experiments = await ask(portal.store.experiments.get, instance.request.experiments)
    events = await ask(portal.store.instances.events, instance.id)
    chosen = [experiments[key] for key in instance.request.experiments if key in experiments]
    return _card(portal, instance, events, words.rows(account, chosen, portal.today), portal.now())


def _card(portal: Portal, instance: Instance, events: list[Event], rows: list[words.Row], now: datetime) -> Card:
    lab, desktop = links(portal, instance)
    return Card(
        instance=instance,
        state=words.state(instance, words.current_step(instance, events), now),
        can=can(instance),
        rows=rows,
        software=described(environment_of(portal, instance), instance.request.environment),
        machine=described(hardware_of(portal, instance), instance.request.hardware),
        lab=lab,
        desktop=desktop,
        events=tuple(events),
    )
