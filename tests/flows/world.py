"""A small facility for the tests of flows: a real store on SQLite, a fake place, a clock that is moved by hand."""

from __future__ import annotations

import shutil
from datetime import date
from pathlib import Path
from typing import Any

from visahub.flows.launch import Admission, Menu, admit
from visahub.model.account import Account, Identity
from visahub.model.experiment import Experiment, Member
from visahub.model.instance import Instance, Phase
from visahub.model.launch import Launch
from visahub.model.offer import Environment, Hardware
from visahub.model.policy import Restriction
from visahub.model.request import StartRequest
from visahub.store.database import Store
from visahub.testing.backends import FakeBackend, Place
from visahub.testing.clock import Clock

PAST, FUTURE = date(2022, 1, 1), date(2029, 1, 1)
DEPLOYMENT = "visahub"


def hardware(key: str, **changes: Any) -> Hardware:
    plain = {"id": key, "name": key, "backend": "fake", "place": "a fake place", "cores": 1, "memory_mb": 1024}
    return Hardware(**plain | changes)


MENU = Menu(
    environments=(
        Environment(id="python", name="Python", images={"fake": "python", "other": "python"}),
        Environment(id="p03", name="P03", images={"fake": "p"}, restriction=Restriction(groups=frozenset({"p03"}))),
    ),
    hardware=(
        hardware("small"),
        hardware("gpu", restriction=Restriction(instruments=frozenset({"P03"}))),
        hardware("elsewhere", backend="other"),
    ),
)
ALICE, BOB = Member("alice"), Member("bob")
PLAIN = {"proposal": "p", "title": "t", "instrument": "P04", "start": PAST, "end": PAST}
EXPERIMENTS = [
    Experiment(**{**PLAIN, "id": "mine", "proposal": "p1", "team": (ALICE, BOB), "public_at": FUTURE}),
    Experiment(**{**PLAIN, "id": "open", "proposal": "p2", "public_at": PAST, "team": (BOB,)}),
    Experiment(**{**PLAIN, "id": "embargoed", "proposal": "p3", "public_at": FUTURE, "team": (BOB,)}),
    Experiment(**{**PLAIN, "id": "undated", "proposal": "p4", "end": None, "team": (ALICE,)}),
    Experiment(**{**PLAIN, "id": "at-p03", "proposal": "p5", "instrument": "P03", "team": (ALICE,)}),
]


def template(folder: Path) -> Path:
    """Makes a migrated, empty database, to be copied by each test."""
    store = Store(f"sqlite:///{folder}/template.sqlite")
    store.upgrade()
    store.close()
    return folder / "template.sqlite"


class World:
    """One facility. `backend()` is the present Hub's; another one on the same place is the Hub after a restart."""

    def __init__(self, folder: Path, empty: Path) -> None:
        shutil.copy(empty, folder / "visahub.sqlite")
        self.store = Store(f"sqlite:///{folder}/visahub.sqlite")
        self.clock = Clock()
        self.menu = MENU
        self.place = Place()
        self.backend = self.fresh_backend()
        self.store.experiments.replace_source("test", EXPERIMENTS, self.clock())
        self.alice = self.account("alice")

    def fresh_backend(self, **changes: Any) -> FakeBackend:
        return FakeBackend(place=self.place, deployment=DEPLOYMENT, **changes)

    def account(self, username: str, **changes: Any) -> Account:
        return self.store.accounts.enter(
            Identity(issuer="t", subject=username, username=username, **changes), uid_min=20000
        )

    def admitted(self, server_name: str = "ione", account: Account | None = None, **choices: Any) -> Admission:
        raw = {"environment": "python", "hardware": "small", "experiments": ["mine"]} | choices
        request = StartRequest.read(raw)
        return admit(self.store, MENU, account or self.alice, server_name, request, self.clock(), 600)

    def launch(self, admission: Admission) -> Launch:
        return launch_of(admission)

    def row(self, admission: Admission) -> Instance:
        row = self.store.instances.get(admission.instance.id)
        assert row is not None
        return row

    def phase(self, admission: Admission) -> Phase:
        return self.row(admission).phase

    def told(self, admission: Admission) -> list[tuple[str, str]]:
        """Gives kind and key of all events."""
        return [(event.kind, event.key) for event in self.store.instances.events(admission.instance.id)]


def launch_of(admission: Admission) -> Launch:
    instance = admission.instance
    return Launch(
        instance_id=instance.id,
        attempt=instance.attempt,
        deployment=DEPLOYMENT,
        name=instance.name,
        account=admission.account,
        experiments=admission.experiments,
        environment=admission.environment,
        hardware=admission.hardware,
        resolution=instance.request.resolution,
        keyboard=instance.request.keyboard,
    )
