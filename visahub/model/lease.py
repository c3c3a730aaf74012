"""Which Hub works on a database: one at a time, of one deployment. Decided here, kept in `store/leases.py`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

# A Hub that has not said for so long that it lives is taken for dead by other machines.
LEASE_SECONDS = 60


@dataclass(frozen=True, kw_only=True)
class Holder:
    """One process of one machine. `machine` names the run of its system, `born` when the process began in it."""

    deployment: str
    host: str
    machine: str
    pid: int
    born: str

    @property
    def is_free(self) -> bool:
        """Tells that the process has given the database free at its end."""
        return self.pid == 0


@dataclass(frozen=True, kw_only=True)
class Lease:
    """Who works on the database since when, and when it last said so."""

    holder: Holder
    taken: datetime
    renewed: datetime


def refusal(lease: Lease | None, mine: Holder, now: datetime, *, is_alive: bool, has_instances: bool) -> str:
    """Says why a Hub must not start, '' when it may.

    `is_alive` tells whether the lease's process runs, and counts only on its own machine.
    """
    if lease is None or lease.holder == mine:
        return ""
    holder = lease.holder
    if holder.deployment != mine.deployment and has_instances:
        return (
            f"This database belongs to the deployment {holder.deployment!r}, whose instances it still has, and not to "
            f"{mine.deployment!r}. Give this Hub a database of its own (Visahub.database_url), or set "
            f"Visahub.deployment back to {holder.deployment!r}."
        )
    if holder.is_free:
        return ""
    if holder.machine == mine.machine:
        return _held(lease, "Stop it first.") if is_alive else ""
    # Either way: a clock that was set back must not make the lease of a dead Hub last for days.
    if abs(now - lease.renewed) < timedelta(seconds=LEASE_SECONDS):
        return _held(lease, f"Stop it first; if it is gone, start again in {LEASE_SECONDS} seconds.")
    return ""


def _held(lease: Lease, remedy: str) -> str:
    holder = lease.holder
    return (
        f"Another Hub works on this database: process {holder.pid} on {holder.host}, since "
        f"{lease.taken:%Y-%m-%d %H:%M} UTC, deployment {holder.deployment!r}. Two would end each other's instances. "
        f"{remedy}"
    )
