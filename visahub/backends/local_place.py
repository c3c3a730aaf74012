"""Local instances on this machine, as they are: made, listed and ended by what the kernel and the disk say.

Every method blocks; `local.py` calls them in threads.
"""

from __future__ import annotations

import os
from functools import partial

from ..model.errors import Failed
from ..model.launch import Condition, Launch, Look, Seen
from . import local_launch as launches
from . import local_processes as processes
from .local_accounts import Person
from .local_groups import Groups
from .local_runs import Record, Run, Runs


class LocalPlace:
    """The run directories, control groups and processes of one deployment."""

    def __init__(self, runs: Runs, groups: Groups, *, limit_memory: bool) -> None:
        self.groups = groups
        self._runs = runs
        self._limit_memory = limit_memory
        # Which starts are under way in this Hub; a killed Hub has none.
        self.starting: set[str] = set()
        # Only to collect the exit status of what this Hub has started.
        self._children: set[int] = set()
        self._is_swept = False

    def prepared(self, launch: Launch, person: Person) -> tuple[Run, list[str]]:
        """Gives the attempt's run directory with the home prepared, or as it is when the attempt runs already."""
        run = self._runs.get(launch.attempt)
        if run is not None:
            if is_running(run):
                return run, []
            # What an interrupted start has left.
            self.ended(launch.attempt)
        kept = [link for other in self._runs.all() if other.record.home == person.home for link in other.record.links]
        run = self._runs.make(
            Record(
                attempt=launch.attempt,
                instance_id=launch.instance_id,
                uid=person.uid,
                gid=person.gid,
                home=person.home,
            )
        )
        orders = {
            "home": person.home,
            "kept": kept,
            "list": str(run.list),
            "experiments": [launches.experiment_row(experiment) for experiment in launch.experiments],
        }
        answer = processes.as_user(person, "local_home.py", orders)
        return self._runs.update(run, answer["links"]), answer["notes"]

    def spawned(self, launch: Launch, person: Person, run: Run, command: list[str]) -> None:
        """Starts the keeper and with it the server, unless the attempt runs already."""
        if is_running(run):
            return
        memory_mb = launch.hardware.memory_mb if self._limit_memory else 0
        orders = {
            "pid_file": str(run.pid_file),
            "cgroups": self.groups.make(run.key, memory_mb),
            **person.rights,
            "home": person.home,
            "data_bytes": 0 if self.groups.memory is not None else memory_mb * 1024 * 1024,
            "command": command,
            "environ": launches.environ(launch, person, run, command[0]),
        }
        log = os.open(run.log, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            self._children.add(processes.spawn(orders, log, run.pid_file.exists))
        except Failed as error:
            raise Failed(error.sentence, log=run.tail()) from error
        finally:
            os.close(log)

    def look(self) -> Look:
        if not self._is_swept:
            self._is_swept = True
            self._runs.sweep()
        for child in list(self._children):
            if processes.has_ended(child):
                self._children.discard(child)
        table = processes.scan()
        listed: dict[str, Condition] = {}
        for run in self._runs.all():
            condition = self._condition(run)
            if condition is not None:
                listed[run.record.attempt] = condition
        for process in table.values():
            # Somebody has removed the run directory of an instance that goes on.
            if process.attempt not in listed and self._runs.is_runtime(process.attempt, process.runtime):
                listed[process.attempt] = Condition(seen=Seen.FAILED, sentence="Only processes are left of it.")
        return listed

    def _condition(self, run: Run) -> Condition | None:
        state = {"run": str(run.path)}
        keeper = run.keeper()
        if keeper is None:
            # Nothing runs: it is being started now, or a killed Hub had not come further.
            return Condition(seen=Seen.STARTING, state=state) if run.record.attempt in self.starting else None
        if not processes.is_alive(*keeper):
            return Condition(seen=Seen.FAILED, state=state, sentence=_last_words(run))
        if run.is_listening():
            return Condition(seen=Seen.RUNNING, state=state, address=run.address, instance_id=run.record.instance_id)
        return Condition(seen=Seen.STARTING, state=state, instance_id=run.record.instance_id)

    def ended(self, attempt: str) -> None:
        """Ends all processes of an attempt and removes its run directory; nothing to do is right too."""
        run = self._runs.get(attempt)
        keeper = run.close() if run is not None else None
        members = partial(self._members, attempt, run, keeper)
        key = self._runs.key(attempt)
        processes.end(members, partial(self.groups.kill, key), keeper)
        self.groups.remove(key)
        if run is not None:
            run.remove()

    def _members(self, attempt: str, run: Run | None, keeper: tuple[int, int] | None) -> dict[int, int]:
        """Gives all processes of an attempt and when each began: what its control group holds, what its environment
        names, and below.
        """
        table = processes.scan()
        roots = self.groups.pids(self._runs.key(attempt))
        if keeper is not None and processes.is_alive(*keeper):
            roots.add(keeper[0])
        for process in table.values():
            # An account could name another's attempt in the environment of a process of its own.
            is_own = run is None or process.uid == run.record.uid
            if is_own and process.attempt == attempt and self._runs.is_runtime(attempt, process.runtime):
                roots.add(process.pid)
        return {pid: table[pid].started for pid in processes.below(table, roots)}


def is_running(run: Run) -> bool:
    keeper = run.keeper()
    return keeper is not None and processes.is_alive(*keeper)


def _last_words(run: Run) -> str:
    lines = run.tail().splitlines()
    said = f" Its last line: {lines[-1][:200]}" if lines else ""
    return f"JupyterLab has ended by itself.{said}"
