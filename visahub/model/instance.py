"""An instance and its states: what is wanted, what is, and which move is allowed from where."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from .errors import Refused
from .request import StartRequest

# A backend's own notes on what it made: a JSON object that only that backend reads.
State = Mapping[str, Any]
# The attempt: what ties a row to whatever exists outside.
Ref = str


class Want(StrEnum):
    """What the owner wants. `want` wins over every other column when something was interrupted."""

    ON = "on"
    OFF = "off"
    GONE = "gone"


class Phase(StrEnum):
    """What is. The states of visa.md I1, as far as backends can tell them apart."""

    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    STOPPED = "stopped"
    ERROR = "error"
    DELETING = "deleting"
    GONE = "gone"

    @property
    def is_waiting(self) -> bool:
        """Tells whether something is under way, so that a deadline applies."""
        return self in {Phase.STARTING, Phase.STOPPING, Phase.DELETING}


# From what is to what may come next. Anything else is a defect, refused by `Instance.moved`.
MOVES: Mapping[Phase, frozenset[Phase]] = {
    Phase.STARTING: frozenset({Phase.READY, Phase.STOPPING, Phase.STOPPED, Phase.ERROR, Phase.DELETING}),
    Phase.READY: frozenset({Phase.STOPPING, Phase.STOPPED, Phase.ERROR, Phase.DELETING}),
    Phase.STOPPING: frozenset({Phase.STOPPED, Phase.ERROR, Phase.DELETING}),
    Phase.STOPPED: frozenset({Phase.STARTING, Phase.DELETING, Phase.GONE}),
    Phase.ERROR: frozenset({Phase.STARTING, Phase.STOPPING, Phase.STOPPED, Phase.DELETING, Phase.GONE}),
    Phase.DELETING: frozenset({Phase.GONE, Phase.ERROR}),
    Phase.GONE: frozenset(),
}


@dataclass(frozen=True, kw_only=True)
class Instance:
    """One row of the table that is the truth about what runs. Times are UTC and aware."""

    id: str
    owner_id: int
    owner: str
    server_name: str
    request: StartRequest
    want: Want
    phase: Phase
    attempt: Ref
    backend: str
    created: datetime
    changed: datetime
    state: State = field(default_factory=dict, repr=False)
    address: str = ""
    deadline: datetime | None = None
    sentence: str = ""
    started: datetime | None = None
    ready: datetime | None = None
    stopped: datetime | None = None
    last_activity: datetime | None = None
    # The last key press or pointer movement on the desktop, which an open tab alone does not make.
    last_input: datetime | None = None

    @property
    def name(self) -> str:
        return self.request.name or self.server_name

    def moved(self, phase: Phase, now: datetime, **changes: Any) -> Instance:
        """Gives the instance in another phase; raises Refused (status 409) for a move that is not allowed."""
        if phase is not self.phase and phase not in MOVES[self.phase]:
            raise Refused(
                f"{self.name} is {WORDS[self.phase]} and cannot become {WORDS[phase]}. Reload the page.",
                rule="move",
                status=409,
            )
        return replace(self, phase=phase, changed=now, **changes)

    @property
    def may_start(self) -> bool:
        return self.phase in {Phase.STOPPED, Phase.ERROR} and self.want is not Want.GONE

    @property
    def may_stop(self) -> bool:
        return self.phase in {Phase.STARTING, Phase.READY, Phase.ERROR} and self.want is Want.ON

    @property
    def may_delete(self) -> bool:
        return self.want is not Want.GONE


# How a state is said: "quiet-beamline is starting".
WORDS: Mapping[Phase, str] = {
    Phase.STARTING: "starting",
    Phase.READY: "ready",
    Phase.STOPPING: "stopping",
    Phase.STOPPED: "stopped",
    Phase.ERROR: "in error",
    Phase.DELETING: "being deleted",
    Phase.GONE: "deleted",
}


@dataclass(frozen=True, kw_only=True)
class Event:
    """One thing that happened to an instance. `seconds` is how long the step took, None while it lasts."""

    id: int
    instance_id: str
    attempt: Ref
    at: datetime
    kind: str  # "step" | "ready" | "error" | "stopping" | "stopped" | "deleted" | "wished" | "renamed" | "note"
    # Which step, e.g. "process", the same in every start so that usual durations can be told; of a wish: what.
    key: str
    text: str
    percent: int | None = None
    seconds: float | None = None


def new_attempt() -> Ref:
    """Makes the random attempt that is committed before a backend is asked: 26 lower-case letters and digits."""
    return _random(26)


def new_instance_id() -> str:
    """Makes an instance's id, which is also the name of its Hub server: a letter and 9 letters or digits."""
    return "i" + _random(9)


def _random(length: int) -> str:
    alphabet = "abcdefghijklmnopqrstuvwxyz0123456789"
    return "".join(secrets.choice(alphabet) for _ in range(length))


_ADJECTIVES = """
    bright calm clear brave quick quiet gentle golden silver sunny steady swift sharp tidy warm bold keen
    light lively merry noble polar rapid smooth still subtle vivid wide young coherent
""".split()  # noqa: SIM905 - a list literal would take a line per word
_NOUNS = """
    beamline lattice photon neutron undulator crystal detector phonon mirror grating monochromator wiggler
    magnet spectrum pulse bunch cavity prism lens sample tomogram diffractor scatterer muon electron proton
    soliton exciton
""".split()  # noqa: SIM905 - a list literal would take a line per word


def friendly_name() -> str:
    """Proposes a name that people can say: quiet-beamline."""
    return f"{secrets.choice(_ADJECTIVES)}-{secrets.choice(_NOUNS)}"
