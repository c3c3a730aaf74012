"""Instances as processes of this machine: for demonstrations, courses and laboratories with one server.

A Hub that runs as root gives each account its own Unix account; any other Hub runs everything as itself. What exists
is read from the run directories, control groups and /proc, never from memory: a Hub that was killed finds it again.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path
from typing import Any, TypeVar

import httpx
from traitlets import Bool, Dict, List, Unicode

from ..model.errors import Failed, Unavailable
from ..model.instance import State
from ..model.launch import Launch, Look, Step
from ..model.offer import Hardware, Offer
from . import local_launch as launches
from . import local_problems as problems
from .base import Backend
from .local_accounts import Person, group_number, is_system_group, own_person, unix_person
from .local_groups import Groups
from .local_machine import free_memory_mb, offer
from .local_place import LocalPlace, is_running
from .local_runs import Run, Runs

_Answer = TypeVar("_Answer")
_TICK_SECONDS = 0.02
_ANSWER_SECONDS = 5.0
_THREADS = 16
_PROXY_GROUP = "visahub-proxy"
# Sockets below must stay short; see local_runs.
_LONGEST_RUN_ROOT = 32


class LocalBackend(Backend):
    """Runs instances on the Hub's own machine."""

    id = Unicode("local", help="The backend's id, as `Hardware.backend` names it.").tag(config=True)
    run_root = Unicode(
        help="Where sockets and logs of running instances are kept: a short path, in lower-case letters, on a local "
        "disk. Default: /run/visahub for root, else $XDG_RUNTIME_DIR/visahub, ~/.local/state/visahub or a folder in "
        "/tmp. Change it when that place is not writable."
    ).tag(config=True)
    data_dir = Unicode(
        help="Where homes are kept without Unix accounts, in `homes/`. Default: $XDG_DATA_HOME/visahub or "
        "~/.local/share/visahub."
    ).tag(config=True)
    home_root = Unicode(
        help="In which directory homes are. Default: /home with Unix accounts, else `homes` in `data_dir`. "
        "Change it when homes are on another file system."
    ).tag(config=True)
    cgroup_root = Unicode(
        "/sys/fs/cgroup",
        help="Where control groups are mounted; they hold an instance's processes together and limit its memory. "
        "Empty: use none.",
    ).tag(config=True)
    limit_memory = Bool(
        True,
        help="Whether an instance may use no more memory than its hardware says: all its processes together where "
        "control groups allow it, else each of its processes. Switch it off when something needs more address space.",
    ).tag(config=True)
    use_unix_accounts = Bool(
        help="Whether each account gets a Unix account of its own, so that accounts are kept apart. Default: yes when "
        "the Hub is root, which it needs. A Hub that is root should switch it off only in a container that is thrown "
        "away: instances then run as root."
    ).tag(config=True)
    proxy_group = Unicode(
        help="The Unix group (name or number) of a proxy that is not root: it may use the sockets of instances, which "
        "are closed to everybody else. Default: visahub-proxy where that is a system group here, else none, which is "
        "right for a proxy that the Hub starts."
    ).tag(config=True)
    commands: Dict[str, list[str]] = Dict(
        value_trait=List(Unicode()),
        key_trait=Unicode(),
        help="How an environment's image for this backend is started: `{image: [program, argument, ...]}`. "
        "Without an entry, an absolute path is taken for the Python that starts JupyterLab, and '' or 'this' for the "
        "Python of the Hub.",
    ).tag(config=True)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._made_place: LocalPlace | None = None
        # Two starts of one account take turns with its home.
        self._homes: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        # Not asyncio's own threads: a file server that hangs must not keep the Hub from its database.
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix=self.id)

    def _run_root_default(self) -> str:
        if os.geteuid() == 0:
            return "/run/visahub"
        places = [os.environ.get("XDG_RUNTIME_DIR", ""), str(Path.home() / ".local" / "state")]
        for place in (f"{path}/visahub" for path in places if path):
            if len(place) <= _LONGEST_RUN_ROOT and place == place.lower():
                return place
        return f"{tempfile.gettempdir()}/visahub-{os.getuid()}"

    def _data_dir_default(self) -> str:
        base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
        return str(Path(base) / "visahub")

    def _proxy_group_default(self) -> str:
        return _PROXY_GROUP if os.geteuid() == 0 and is_system_group(_PROXY_GROUP) else ""

    def _use_unix_accounts_default(self) -> bool:
        return os.geteuid() == 0

    def _home_root_default(self) -> str:
        return "/home" if self.use_unix_accounts else str(Path(self.data_dir) / "homes")

    # What Backend promises

    def remarks(self) -> list[str]:
        found = []
        if not self.use_unix_accounts:
            found.append(
                "Local instances of all accounts run as the Unix account of the Hub, without isolation between them. "
                "Run the Hub as root on a machine of its own, or use this only for people who trust each other."
            )
        if not self.limit_memory:
            found.append("The memory of local instances is not limited (LocalBackend.limit_memory is off).")
        elif self._place().groups.memory is None:
            found.append(
                "Control groups for memory cannot be used here: a local instance's limit holds for each of its "
                "processes alone. Run the Hub as root outside a container to limit whole instances."
            )
        return found

    def problems(self) -> list[str]:
        run_root = Path(self.run_root)
        is_open = not self.use_unix_accounts or launches.is_open_to_all(sys.executable)
        return [
            *problems.of_run_root(run_root, Runs(run_root, self.deployment).longest()),
            *problems.of_programs(sys.executable, is_open, self.commands),
            *(problems.of_accounts(Path(self.home_root)) if self.use_unix_accounts else ()),
        ]

    async def offers(self, hardware: tuple[Hardware, ...]) -> list[Offer]:
        free_mb = await asyncio.to_thread(free_memory_mb)
        return [offer(item, free_mb) for item in hardware if item.backend == self.id]

    async def start(self, launch: Launch) -> AsyncIterator[Step]:
        try:
            async with aclosing(self._steps(launch)) as steps:
                async for step in steps:
                    yield step
        except OSError as error:
            raise Failed(
                f"This machine could not start the instance ({error.strerror or error}). "
                "Try again; if it stays, tell support.",
                log=f"{type(error).__name__}: {error}",
            ) from error

    async def _steps(self, launch: Launch) -> AsyncGenerator[Step, None]:
        command = launches.command(launch, self.id, self.commands)
        place = self._place()
        place.starting.add(launch.attempt)
        try:
            yield Step(key="account", text="Preparing your account", percent=5)
            person = await self._in_thread(self._person, launch)
            yield Step(key="files", text="Preparing your home and the links to your data", percent=20)
            async with self._homes[person.home]:
                run, notes = await self._in_thread(place.prepared, launch, person)
            text = " ".join(["Starting JupyterLab.", *notes]) if notes else "Starting JupyterLab"
            yield Step(key="process", text=text, percent=40, state={"run": str(run.path)})
            await self._in_thread(place.spawned, launch, person, run, command)
            await self._answered(run, launches.prefix(launch))
            yield Step(key="answers", text="JupyterLab answers", percent=95, address=run.address)
        finally:
            place.starting.discard(launch.attempt)

    async def look(self) -> Look:
        try:
            return await asyncio.to_thread(self._place().look)
        except (OSError, ValueError, TypeError) as error:
            raise Unavailable(
                f"The instances on this machine could not be listed ({type(error).__name__} in {self.run_root}). "
                "Nothing was changed; tell support if it stays."
            ) from error

    async def stop(self, attempt: str, state: State) -> None:
        await self._in_thread(self._place().ended, attempt)

    async def delete(self, attempt: str, state: State) -> None:
        # An instance is its processes and run directory; the home belongs to the account.
        await self._in_thread(self._place().ended, attempt)

    async def _in_thread(self, function: Callable[..., _Answer], *args: Any) -> _Answer:
        """Runs what blocks in a thread; when cancelled, awaits its end first, so that a stop finds what it has made."""
        task = asyncio.get_running_loop().run_in_executor(self._threads, function, *args)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            while not task.done():
                try:
                    await asyncio.wait({task})
                except asyncio.CancelledError:
                    continue
            if not task.cancelled():
                task.exception()
            raise

    def _place(self) -> LocalPlace:
        if self._made_place is None:
            groups = Groups.find(self.cgroup_root, self.deployment)
            runs = Runs(Path(self.run_root), self.deployment)
            self._made_place = LocalPlace(runs, groups, limit_memory=self.limit_memory)
        return self._made_place

    def _person(self, launch: Launch) -> Person:
        home_root = Path(self.home_root)
        if self.use_unix_accounts:
            return unix_person(launch.account, home_root)
        return own_person(launch.account, home_root)

    async def _answered(self, run: Run, prefix: str) -> None:
        """Returns when the server answers; raises Failed with its last words when it ends before."""
        transport = httpx.AsyncHTTPTransport(uds=str(run.socket))
        async with httpx.AsyncClient(transport=transport, timeout=_ANSWER_SECONDS, trust_env=False) as client:
            while True:
                if not is_running(run):
                    raise Failed(
                        "JupyterLab ended before it answered. Its last lines are in the log: "
                        "start the instance again, or show them to support.",
                        log=run.tail(),
                    )
                if run.seal() and await _responds(client, f"http://localhost{prefix}api"):
                    gid = group_number(self.proxy_group) if self.proxy_group else None
                    return run.open_to(gid) if gid is not None else None
                await asyncio.sleep(_TICK_SECONDS)


async def _responds(client: httpx.AsyncClient, url: str) -> bool:
    """Tells whether a server answers, in the way in which the Hub will ask: anything but its own error will do.

    Whatever follows the status is not read: the account may have put another program in its server's place.
    """
    try:
        async with asyncio.timeout(_ANSWER_SECONDS), client.stream("GET", url) as answer:
            return answer.status_code < 500
    except (httpx.HTTPError, TimeoutError):
        return False
