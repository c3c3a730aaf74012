"""The gate before the display server: every RFB connection passes it, message by message. Run by the desktop daemon."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import struct
import time
from collections.abc import Callable
from pathlib import Path

from tornado.netutil import bind_unix_socket

from .rfb import MAX_NAME, ClientFilter, Filter, Role, Violation, check_pixel_format
from .rfb_server import ServerFilter

log = logging.getLogger(__name__)

_VERSION = b"RFB 003.008\n"
_HANDSHAKE_SECONDS = 20.0
_GREETING_SECONDS = 3.0
_CHUNK = 1 << 16
_MAX_CONNECTIONS = 16


class Gate:
    """Listens on a unix socket (0600) and joins each connection with the display server's own socket.

    `last_input` is when a key or the pointer was last used (seconds since 1970), which an open tab alone is not.
    """

    def __init__(self, display_socket: Callable[[], Path | None]) -> None:
        self.last_input: float | None = None
        self.connections = 0
        self._display_socket = display_socket
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def listen(self, path: Path, role: Role) -> None:
        """Opens a door for one role. Who may use it is decided by who can open the socket."""
        door = bind_unix_socket(str(path), mode=0o600)
        server = await asyncio.start_unix_server(_Door(self, role).enter, sock=door, limit=_CHUNK)
        self._servers.append(server)

    async def close(self) -> None:
        """Ends every connection."""
        for server in self._servers:
            server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def note_input(self) -> None:
        self.last_input = time.time()

    async def serve(self, role: Role, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves one viewer until either side ends or says something that is not allowed."""
        task = asyncio.current_task()
        if task is None or self.connections >= _MAX_CONNECTIONS:
            writer.close()
            return
        self._tasks.add(task)
        self.connections += 1
        try:
            await self._join(role, reader, writer)
        except Violation as error:
            log.warning("Closed a desktop connection (%s): %s", role.value, error)
        except (OSError, EOFError, TimeoutError) as error:
            log.info("A desktop connection ended: %s", error)
        finally:
            self.connections -= 1
            self._tasks.discard(task)
            _abort(writer)

    async def _join(self, role: Role, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(_HANDSHAKE_SECONDS):
            await _greet_client(reader, writer)
            behind, ahead = await self._connect()
        try:
            async with asyncio.timeout(_HANDSHAKE_SECONDS):
                writer.write(await _greet_server(behind, ahead))
                await writer.drain()
            pumps = [
                asyncio.create_task(_pump(reader, ahead, ClientFilter(role, self.note_input))),
                asyncio.create_task(_pump(behind, writer, ServerFilter(role))),
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
            _abort(ahead)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Waits for the display server, which may just be starting; the caller sets the time limit."""
        while True:
            path = self._display_socket()
            if path is not None:
                with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
                    return await asyncio.open_unix_connection(path, limit=_CHUNK)
            await asyncio.sleep(0.05)


async def speaks(path: Path | None) -> bool:
    """Tells whether the display server greets, as it does at once unless it hangs."""
    if path is None:
        return False
    try:
        async with asyncio.timeout(_GREETING_SECONDS):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                return (await reader.readexactly(12)).startswith(b"RFB ")
            finally:
                _abort(writer)
    except (OSError, EOFError, TimeoutError):
        return False


class _Door:
    """Remembers the role of one socket."""

    def __init__(self, gate: Gate, role: Role) -> None:
        self._gate = gate
        self._role = role

    async def enter(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._gate.serve(self._role, reader, writer)


async def _greet_client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Offers RFB 3.8 without a password: who may open the socket has been decided by whoever gave it out."""
    writer.write(_VERSION)
    if await reader.readexactly(12) != _VERSION:
        raise Violation("only RFB 3.8 is spoken")
    writer.write(b"\x01\x01")
    if await reader.readexactly(1) != b"\x01":
        raise Violation("unknown security type")
    writer.write(bytes(4))
    # Shared or not: the gate always asks the display server for a shared connection.
    await reader.readexactly(1)


async def _greet_server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """Does the client's part towards the display server; gives its ServerInit."""
    if not (await reader.readexactly(12)).startswith(b"RFB 003.0"):
        raise Violation("the display server speaks no RFB")
    writer.write(_VERSION)
    types = await reader.readexactly((await reader.readexactly(1))[0])
    if 1 not in types:
        raise Violation("the display server asks for a password")
    writer.write(b"\x01")
    if await reader.readexactly(4) != bytes(4):
        raise Violation("the display server refused the connection")
    writer.write(b"\x01")
    head = await reader.readexactly(24)
    check_pixel_format(head[4:20])
    (length,) = struct.unpack(">I", head[20:])
    if length > MAX_NAME:
        raise Violation("the name of the desktop is too long")
    return head + await reader.readexactly(length)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, stream: Filter) -> None:
    """Passes on what the filter allows. Each write is awaited: a slow reader slows the sender and fills no memory."""
    while data := await reader.read(_CHUNK):
        out = stream.feed(data)
        if out:
            writer.write(out)
            await writer.drain()


def _abort(writer: asyncio.StreamWriter) -> None:
    # close() would wait for a peer that may never read the rest.
    with contextlib.suppress(OSError, RuntimeError):
        writer.transport.abort()
