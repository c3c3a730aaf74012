"""The display server (Xvnc) and the XFCE session of an instance, kept alive by the desktop daemon."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
import time
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

from visahub.model.errors import Failed, Refused, VisahubError
from visahub.model.request import KEYBOARDS, RESOLUTIONS

from . import privacy, processes
from .rfb import MAX_CUT_TEXT
from .runtime import Runtime, tail

log = logging.getLogger(__name__)

_SETTINGS = Path(__file__).with_name("xfce")
_FIRST_SIZE = "1280x800"
_START_SECONDS = 15.0
_TRIES = 5
# More than so many ends within so many seconds mean that trying again does not help.
_MAX_ENDS = 3
_END_WINDOW_SECONDS = 60.0


class State(StrEnum):
    """What the page shows."""

    STARTING = "starting"
    RUNNING = "running"
    FAILED = "failed"


class Display:
    """Starts Xvnc and XFCE, starts them again when they end, and ends both completely."""

    def __init__(self, runtime: Runtime, environ: Mapping[str, str]) -> None:
        self.state = State.STARTING
        self.sentence = "The desktop is starting."
        resolution = environ.get("VISAHUB_RESOLUTION", RESOLUTIONS[0])
        # "client": the page asks for the size of its window.
        self.follows_window = resolution not in RESOLUTIONS[1:]
        self.size = _FIRST_SIZE if self.follows_window else resolution
        self.keyboard = environ.get("VISAHUB_KEYBOARD", "us")
        if self.keyboard not in KEYBOARDS:
            self.keyboard = "us"
        self._runtime = runtime
        self._environ = environ
        self._number = 0
        self._guard: socket.socket | None = None
        self._task: asyncio.Task[None] | None = None
        self._server: asyncio.subprocess.Process | None = None
        self._session: asyncio.subprocess.Process | None = None

    @property
    def socket(self) -> Path | None:
        """Xvnc's RFB socket, None while there is none to wait for."""
        if self.state is State.FAILED:
            raise ConnectionRefusedError(self.sentence)
        return self._runtime.display if self.state is State.RUNNING else None

    @property
    def children(self) -> set[int]:
        """The processes that asyncio waits for."""
        return {process.pid for process in (self._server, self._session) if process is not None}

    def start(self) -> None:
        """Begins, or begins again after a failure; returns at once."""
        if self._task is None or self._task.done():
            self.state, self.sentence = State.STARTING, "The desktop is starting."
            self._task = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """Ends the session and the display server with everything in them."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._end()

    async def set_keyboard(self, layout: str) -> None:
        """Changes the keyboard layout of the running desktop; raises Refused or Failed."""
        if layout not in KEYBOARDS:
            raise Refused("This keyboard layout is not offered. Choose one of the list.", rule="keyboard", status=422)
        if self.state is State.RUNNING:
            process = await asyncio.create_subprocess_exec(
                "setxkbmap", "-layout", layout, env=self._session_environ(), stderr=asyncio.subprocess.DEVNULL
            )
            async with asyncio.timeout(10):
                if await process.wait() != 0:
                    raise Failed("The keyboard layout could not be changed. Try again, or restart the desktop.")
        self.keyboard = layout

    async def _keep(self) -> None:
        ends: list[float] = []
        try:
            while True:
                try:
                    await self._start_once()
                    self.state, self.sentence = State.RUNNING, ""
                    await self._wait_for_end()
                except TimeoutError:
                    log.warning("The display server did not start in time")
                log.warning("The desktop ended; starting it again")
                self.state, self.sentence = State.STARTING, "The desktop ended unexpectedly and is starting again."
                await self._end()
                now = time.monotonic()
                ends = [*(at for at in ends if now - at < _END_WINDOW_SECONDS), now]
                if len(ends) >= _MAX_ENDS:
                    raise Failed(
                        f"The desktop ended {len(ends)} times within a minute. Press 'Start again'; if it stays so, "
                        f"show support the end of {self._runtime.log}."
                    )
                await asyncio.sleep(0.5)
        except VisahubError as error:
            await self._fail(error.sentence)
        except OSError as error:
            await self._fail(f"The desktop could not start ({error.strerror}). Press 'Start again', or ask support.")

    async def _fail(self, sentence: str) -> None:
        log.error("%s", sentence)
        await self._end()
        self.state, self.sentence = State.FAILED, sentence

    async def _start_once(self) -> None:
        privacy.check_programs(self._environ.get("PATH"))
        privacy.check_x_sockets()
        privacy.write_cookie(self._runtime.cookie)
        for _ in range(_TRIES):
            # A number that nobody can guess: names in /tmp may be taken, or made beforehand by somebody else.
            self._number = 1000 + secrets.randbelow(50_000)
            self._server = await self._start_server()
            if await self._is_ready() and self._is_ours():
                break
            await _end_process(self._server)
        else:
            raise Failed(
                f"No display could be opened: {last_line(self._runtime.log) or 'Xvnc said nothing.'} Ask support."
            )
        await self.set_keyboard_quietly()
        bus = f"--config-file={self._runtime.bus_settings}"
        privacy.write_bus_settings(self._runtime.bus_settings)
        self._session = await asyncio.create_subprocess_exec(
            *processes.dying_with_parent(["dbus-run-session", bus, "--", "xfce4-session"]),
            env=self._session_environ(),
            cwd=self._environ.get("HOME") or "/",
            stdin=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )

    async def set_keyboard_quietly(self) -> None:
        """A desktop with another keyboard layout is better than none."""
        process = await asyncio.create_subprocess_exec(
            "setxkbmap", "-layout", self.keyboard, env=self._session_environ(), stderr=asyncio.subprocess.DEVNULL
        )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(10):
                await process.wait()

    async def _start_server(self) -> asyncio.subprocess.Process:
        self._runtime.display.unlink(missing_ok=True)
        reader, writer = os.pipe()
        self._ready = reader
        try:
            return await asyncio.create_subprocess_exec(
                *processes.dying_with_parent([*self._server_command(), "-displayfd", str(writer)]),
                # VISAHUB_*: by them a backend knows which instance a process belongs to.
                env={
                    name: self._environ[name] for name in self._environ if name in _FOR_XVNC or name[:8] == "VISAHUB_"
                },
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(writer,),
                start_new_session=True,
            )
        finally:
            os.close(writer)

    def _server_command(self) -> list[str]:
        privacy.check_cookie(self._runtime.cookie)
        fixed = "-rfbport -1 -nolisten tcp -SecurityTypes None -AlwaysShared -UseBlacklist=0 -noreset -depth 24 -dpi 96"
        return [
            "Xvnc",
            f":{self._number}",
            "-auth",
            str(self._runtime.cookie),
            "-rfbunixpath",
            str(self._runtime.display),
            "-rfbunixmode",
            "0600",
            "-geometry",
            self.size,
            "-desktop",
            "visahub",
            f"-MaxCutText={MAX_CUT_TEXT}",
            # Marking text must not overwrite the clipboard of the user's own computer.
            "-SendPrimary=0",
            *fixed.split(" "),
        ]

    async def _is_ready(self) -> bool:
        """Waits until Xvnc has written its number; an end of file means that it ended."""
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(self._ready, "rb", 0)
        )
        try:
            async with asyncio.timeout(_START_SECONDS):
                return (await reader.readline()).strip() == str(self._number).encode()
        finally:
            transport.close()

    def _is_ours(self) -> bool:
        """Makes sure that programs which open this display reach our Xvnc and nobody else's.

        They try the abstract name first, which any user may take when Xvnc has not: then it is taken here, unused.
        """
        name = f"{privacy.X_SOCKETS}/X{self._number}"
        if self._server is None or privacy.listener(name) != self._server.pid:
            return False
        abstract = privacy.listener("\0" + name)
        if abstract is None:
            self._guard = socket.socket(socket.AF_UNIX)
            try:
                self._guard.bind("\0" + name)
            except OSError:
                return False
            return True
        return abstract == self._server.pid

    async def _wait_for_end(self) -> None:
        if self._server is None or self._session is None:
            return
        waits = [asyncio.create_task(process.wait()) for process in (self._server, self._session)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _end(self) -> None:
        """Ends the programs first, so that they can save, then the display server."""
        keep = {self._server.pid} if self._server else set()
        await processes.end_all(keep)
        for process in (self._session, self._server):
            if process is not None:
                await _end_process(process)
        self._session = self._server = None
        if self._guard is not None:
            self._guard.close()
            self._guard = None
        self._runtime.display.unlink(missing_ok=True)

    def _session_environ(self) -> dict[str, str]:
        xdg = self._runtime.folder / "xdg"
        xdg.mkdir(mode=0o700, exist_ok=True)
        environ = {name: value for name, value in self._environ.items() if name not in _NOT_IN_SESSION}
        system = environ.get("XDG_CONFIG_DIRS") or "/etc/xdg"
        return {
            "XDG_RUNTIME_DIR": str(xdg),
            **environ,
            "DISPLAY": f":{self._number}",
            "XAUTHORITY": str(self._runtime.cookie),
            "XDG_CONFIG_DIRS": f"{_SETTINGS}:{system}",
            "XDG_CURRENT_DESKTOP": "XFCE",
            "XDG_SESSION_TYPE": "x11",
            "XDG_MENU_PREFIX": "xfce-",
            "DESKTOP_SESSION": "xfce",
            # The panel asks which layout to take at its first start; this is its own way to say "the default".
            "XFCE_PANEL_MIGRATE_DEFAULT": "1",
            # No accessibility bus: it is looked for with a time-out by each program.
            "NO_AT_BRIDGE": "1",
        }


_FOR_XVNC = frozenset(("PATH", "HOME", "LANG"))
_NOT_IN_SESSION = frozenset(("DBUS_SESSION_BUS_ADDRESS", "SESSION_MANAGER", "WAYLAND_DISPLAY"))


def last_line(path: Path) -> str:
    """Gives the last line of a log that says something."""
    lines = [line.strip() for line in tail(path).splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


async def _end_process(process: asyncio.subprocess.Process) -> None:
    for end in (process.terminate, process.kill):
        with contextlib.suppress(ProcessLookupError):
            end()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(3):
                await process.wait()
                return
