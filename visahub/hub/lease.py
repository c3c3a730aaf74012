"""One Hub works on a database: taken at its start, renewed by a thread, given free at its end."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import socket
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

from ..model.errors import Refused, VisahubError
from ..model.jumps import counted
from ..model.lease import LEASE_SECONDS, Holder, Lease
from ..store.database import Store

log = logging.getLogger("jupyterhub.visahub")

_BEAT_SECONDS = LEASE_SECONDS / 6


def myself(deployment: str) -> Holder:
    """Gives this process as a holder of a lease."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    # Two containers of one machine may have one host name, and count their processes apart.
    machine = f"{boot} {os.readlink('/proc/self/ns/pid')}"
    pid = os.getpid()
    return Holder(deployment=deployment, host=socket.gethostname(), machine=machine, pid=pid, born=_born(pid))


def is_alive(holder: Holder) -> bool:
    """Tells whether a process of this machine goes on, and is not another one with the same number."""
    return _born(holder.pid) == holder.born


def _born(pid: int) -> str:
    """Gives when a process began, in the kernel's own count; '' for one that has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in {"Z", "X"} else fields[19]


class Tenure:
    """This Hub's time with the database."""

    def __init__(self, store: Store, deployment: str) -> None:
        self._store = store
        self._mine = myself(deployment)
        self._ended = threading.Event()
        # A thread: it goes on while the event loop is busy, and begins before there is one.
        self._thread = threading.Thread(target=self._beat, name="visahub-lease", daemon=True)

    def begin(self) -> Lease | None:
        """Takes the database and gives the lease before; raises Refused with the reason when another Hub has it."""
        before = self._store.leases.take(self._mine, _now(), is_alive)
        atexit.register(self.end)
        self._thread.start()
        return before

    def end(self) -> None:
        """Gives the database free, so that a Hub on another machine can start at once."""
        self._ended.set()
        if self._mine.pid != os.getpid():
            # A child that was forked off ends.
            return
        try:
            self._store.leases.release(self._mine, _now())
        except VisahubError as error:
            log.warning("The database was not given free; another Hub has to wait: %s", error)

    def _beat(self) -> None:
        while not self._ended.wait(_BEAT_SECONDS):
            try:
                is_mine = self._store.leases.renew(self._mine, _now())
            except VisahubError as error:
                log.warning("The lease was not renewed: %s", error)
            except Exception:
                log.exception("The lease was not renewed")
            else:
                if not is_mine:
                    log.critical("Another Hub works on visahub's database by now. This one ends; instances go on.")
                    os.kill(os.getpid(), signal.SIGTERM)
                    return


def _now() -> datetime:
    return datetime.now(UTC)


def begin(store: Store, deployment: str) -> None:
    """Takes the database for this process, or ends it with the sentence that says why not.

    While no Hub looked, or while the clock was set, nothing became late.
    """
    try:
        before = Tenure(store, deployment).begin()
    except Refused as error:
        sys.exit(f"visahub: {error.sentence}")
    gap = counted(_now() - before.renewed) if before else None
    if gap:
        moved = store.instances.shift(gap)
        log.warning("No Hub has looked for %s, or the clock was set; %s deadlines move along", gap, moved)
