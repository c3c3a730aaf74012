"""What travels between a flow, a backend and the instance: the admitted launch, its steps and what was seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from .account import Account
from .experiment import Experiment
from .instance import Ref, State
from .offer import Environment, Hardware


@dataclass(frozen=True, kw_only=True)
class Launch:
    """An admitted start. `environ` is all that the instance is told (it holds the server's own token)."""

    instance_id: str
    attempt: Ref
    deployment: str
    name: str
    account: Account
    experiments: tuple[Experiment, ...]
    environment: Environment
    hardware: Hardware
    resolution: str
    keyboard: str
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of a start. A step without `state` keeps the last one; the last step carries the `address`.

    `key` is the same in every start (usual durations are told by key), `text` is what the user reads while the
    step lasts. `address` is a URL, `http://host:port` or `http+unix://%2Fpath%2Fto.sock`.
    """

    key: str
    text: str
    percent: int
    state: State | None = None
    address: str = ""


class Seen(StrEnum):
    """What a backend sees of a resource."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One resource of this deployment as its backend sees it; `state` and `address` allow its adoption.

    `instance_id` is the id that its launch had, '' when the place does not keep it.
    """

    seen: Seen
    state: State = field(default_factory=dict, repr=False)
    address: str = ""
    sentence: str = ""
    instance_id: str = ""

    @property
    def is_live(self) -> bool:
        """Tells whether it runs or is about to."""
        return self.seen in {Seen.STARTING, Seen.RUNNING}


# What one question to a backend answers: every resource of this deployment, by attempt.
Look = Mapping[Ref, Condition]
