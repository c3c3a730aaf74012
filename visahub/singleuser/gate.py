"""The gate before the display server: every RFB connection passes it, message by message. Run by the desktop daemon."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
import time
from collections.abc import Callable, Coroutine
from pathlib import Path

from tornado.netutil import bind_unix_socket

from . import handover
from .link import Link
from .rfb import MAX_NAME, ClientFilter, Filter, Role, Violation, check_pixel_format
from .rfb_server import ServerFilter
from .websocket import CLOSED_BY_DESKTOP, TOO_MANY, WebLink

log = logging.getLogger(__name__)

_VERSION = b"RFB 003.008\n"
_HANDSHAKE_SECONDS = 20.0
_GREETING_SECONDS = 3.0
_REFUSAL_SECONDS = 5.0
_PAUSE_SECONDS = 0.5
# Browsers answer a ping by themselves, also in a tab that nobody looks at.
SILENT_SECONDS = 120.0
# One read of a picture; a client's messages are small.
_PICTURE_BYTES = 1 << 18
_MESSAGE_BYTES = 1 << 16
MAX_CONNECTIONS = 16
# Connections that are only told that there are too many.
_MAX_REFUSALS = 16
# At most 123 bytes.
FULL = f"This desktop is open {MAX_CONNECTIONS} times already. Close it in another window or tab, then try again."


class Gate:
    """Listens on a unix socket (0600) and joins each connection with the display server's own socket.

    `last_input` is when a key or the pointer was last used (seconds since 1970), which an open tab alone is not.
    """

    def __init__(self, display_socket: Callable[[], Path | None]) -> None:
        self.last_input: float | None = None
        self.connections = 0
        self._display_socket = display_socket
        self._doors: set[asyncio.Task[None]] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def listen(self, path: Path, role: Role) -> None:
        """Opens a door for one role. Who may use it is decided by who can open the socket."""
        door = bind_unix_socket(str(path), mode=0o600)
        self._doors.add(asyncio.create_task(self._admit(door, role, self._serve)))

    async def listen_for_browsers(self, path: Path, role: Role) -> None:
        """Opens a door through which the Jupyter server hands over the websockets that it has let in."""
        door = bind_unix_socket(str(path), mode=0o600)
        self._doors.add(asyncio.create_task(self._admit(door, role, self._serve_browser)))

    async def close(self) -> None:
        """Ends every connection."""
        tasks = [*self._doors, *self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def note_input(self) -> None:
        self.last_input = time.time()

    async def _admit(
        self, door: socket.socket, role: Role, serve: Callable[[Role, socket.socket], Coroutine[None, None, None]]
    ) -> None:
        loop = asyncio.get_running_loop()
        with door:
            while True:
                try:
                    link, _ = await loop.sock_accept(door)
                except OSError as error:
                    # No descriptors left, for example: others may end meanwhile.
                    log.error("A desktop connection could not be accepted: %s", error)
                    await asyncio.sleep(_PAUSE_SECONDS)
                    continue
                if len(self._tasks) >= MAX_CONNECTIONS + _MAX_REFUSALS:
                    link.close()
                    continue
                task = asyncio.create_task(serve(role, link))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _serve(self, role: Role, link: socket.socket) -> None:
        """Serves a viewer that speaks RFB itself."""
        viewer = Link(link)
        try:
            if self.connections >= MAX_CONNECTIONS:
                await _refuse(viewer)
            else:
                await self._join_guarded(role, viewer)
        finally:
            viewer.close()

    async def _serve_browser(self, role: Role, door: socket.socket) -> None:
        """Serves a viewer that speaks RFB in a websocket; it reads why it ends."""
        try:
            viewer = WebLink(await handover.take(door))
        except OSError as error:
            log.warning("A desktop connection was not handed over: %s", error)
            return
        watch = asyncio.create_task(_watch(viewer))
        try:
            if self.connections >= MAX_CONNECTIONS:
                log.warning("Refused a desktop connection: %s are open", MAX_CONNECTIONS)
                await viewer.say_goodbye(TOO_MANY, FULL)
            else:
                await self._join_guarded(role, viewer)
                await viewer.say_goodbye(CLOSED_BY_DESKTOP, "The desktop has closed the connection.")
        finally:
            watch.cancel()
            viewer.close()

    async def _join_guarded(self, role: Role, viewer: Link) -> None:
        """Serves one viewer until either side ends or says something that is not allowed."""
        self.connections += 1
        try:
            await self._join(role, viewer)
        except Violation as error:
            log.warning("Closed a desktop connection (%s): %s", role.value, error)
        except (OSError, EOFError, TimeoutError) as error:
            log.info("A desktop connection ended: %s", error)
        finally:
            self.connections -= 1

    async def _join(self, role: Role, viewer: Link) -> None:
        async with asyncio.timeout(_HANDSHAKE_SECONDS):
            await _greet_client(viewer)
            display = await self._connect()
        try:
            async with asyncio.timeout(_HANDSHAKE_SECONDS):
                await viewer.write(await _greet_server(display))
            pumps = [
                asyncio.create_task(_pump(viewer, display, ClientFilter(role, self.note_input), _MESSAGE_BYTES)),
                asyncio.create_task(_pump(display, viewer, ServerFilter(role), _PICTURE_BYTES)),
            ]
            try:
                done, _ = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
            for pump in done:
                pump.result()
        finally:
            display.close()

    async def _connect(self) -> Link:
        """Waits for the display server, which may just be starting; the caller sets the time limit."""
        while True:
            path = self._display_socket()
            if path is not None:
                with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
                    return await Link.to(path)
            await asyncio.sleep(0.05)


async def speaks(path: Path | None) -> bool:
    """Tells whether the display server greets, as it does at once unless it hangs."""
    if path is None:
        return False
    try:
        async with asyncio.timeout(_GREETING_SECONDS):
            display = await Link.to(path)
            try:
                return (await display.read_exactly(12)).startswith(b"RFB ")
            finally:
                display.close()
    except (OSError, EOFError, TimeoutError):
        return False


async def _watch(viewer: WebLink) -> None:
    """Ends a connection whose browser has gone without a word: proxies in between would keep it for ever."""
    with contextlib.suppress(OSError):
        while time.monotonic() - viewer.last_heard < SILENT_SECONDS:
            await asyncio.sleep(SILENT_SECONDS / 4)
            await viewer.ping()
        log.info("A browser has been silent for %s s", SILENT_SECONDS)
        viewer.hang_up()


async def _refuse(viewer: Link) -> None:
    """Says why nobody is served, in the words of the protocol: no security type, and the reason."""
    log.warning("Refused a desktop connection: %s are open", MAX_CONNECTIONS)
    try:
        async with asyncio.timeout(_REFUSAL_SECONDS):
            await viewer.write(_VERSION)
            await viewer.read_exactly(len(_VERSION))
            await viewer.write(struct.pack(">BI", 0, len(FULL)) + FULL.encode())
    except (OSError, EOFError, TimeoutError):
        pass


async def _greet_client(viewer: Link) -> None:
    """Offers RFB 3.8 without a password: who may open the socket has been decided by whoever gave it out."""
    await viewer.write(_VERSION)
    if await viewer.read_exactly(12) != _VERSION:
        raise Violation("only RFB 3.8 is spoken")
    await viewer.write(b"\x01\x01")
    if await viewer.read_exactly(1) != b"\x01":
        raise Violation("unknown security type")
    await viewer.write(bytes(4))
    # Shared or not: the gate always asks the display server for a shared connection.
    await viewer.read_exactly(1)


async def _greet_server(display: Link) -> bytes:
    """Does the client's part towards the display server; gives its ServerInit."""
    if not (await display.read_exactly(12)).startswith(b"RFB 003.0"):
        raise Violation("the display server speaks no RFB")
    await display.write(_VERSION)
    types = await display.read_exactly((await display.read_exactly(1))[0])
    if 1 not in types:
        raise Violation("the display server asks for a password")
    await display.write(b"\x01")
    if await display.read_exactly(4) != bytes(4):
        raise Violation("the display server refused the connection")
    await display.write(b"\x01")
    head = await display.read_exactly(24)
    check_pixel_format(head[4:20])
    (length,) = struct.unpack(">I", head[20:])
    if length > MAX_NAME:
        raise Violation("the name of the desktop is too long")
    return head + await display.read_exactly(length)


async def _pump(source: Link, sink: Link, stream: Filter, size: int) -> None:
    """Passes on what the filter allows. Each write is awaited: a slow reader slows the sender and fills no memory."""
    buffer = memoryview(bytearray(size))
    while count := await source.read_into(buffer):
        await sink.write_all(stream.pieces(buffer[:count]))
