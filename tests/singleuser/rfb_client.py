"""A raw RFB client, because noVNC's own restraint proves nothing about the gate."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Callable
from pathlib import Path

PIXEL_FORMAT = struct.pack(">BBBBHHHBBB3x", 32, 24, 0, 1, 255, 255, 255, 16, 8, 0)
SERVER_INIT = struct.pack(">HH", 640, 480) + PIXEL_FORMAT + struct.pack(">I", 4) + b"fake"


def set_encodings(*numbers: int) -> bytes:
    return struct.pack(f">BxH{len(numbers)}i", 2, len(numbers), *numbers)


def update_request(width: int = 640, height: int = 480, *, incremental: bool = False) -> bytes:
    return struct.pack(">BBHHHH", 3, incremental, 0, 0, width, height)


def key(keysym: int, *, down: bool) -> bytes:
    return struct.pack(">BBxxI", 4, down, keysym)


def pointer(x: int, y: int, mask: int = 0) -> bytes:
    return struct.pack(">BBHH", 5, mask, x, y)


def cut_text(text: bytes) -> bytes:
    return struct.pack(">BxxxI", 6, len(text)) + text


def set_desktop_size(width: int, height: int) -> bytes:
    return struct.pack(">BxHHBxIHHHHI", 251, width, height, 1, 1, 0, 0, width, height, 0)


def qemu_key(keysym: int, code: int, *, down: bool) -> bytes:
    return struct.pack(">BBHII", 255, 0, down, keysym, code)


_opened: list[asyncio.StreamWriter] = []


async def dial(path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Opens a connection that `hang_up` ends."""
    reader, writer = await asyncio.open_unix_connection(path)
    _opened.append(writer)
    return reader, writer


async def hang_up() -> None:
    """Ends every connection that was opened here."""
    for writer in _opened:
        writer.transport.abort()
    _opened.clear()
    await asyncio.sleep(0.01)


async def connect(path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes]:
    """Does the client's part of the handshake; gives the streams and the server's ServerInit."""
    reader, writer = await dial(path)
    async with asyncio.timeout(30):
        assert await reader.readexactly(12) == b"RFB 003.008\n"
        writer.write(b"RFB 003.008\n")
        assert await reader.readexactly(2) == b"\x01\x01"
        writer.write(b"\x01")
        assert await reader.readexactly(4) == bytes(4)
        writer.write(b"\x01")
        head = await reader.readexactly(24)
        return reader, writer, head + await reader.readexactly(struct.unpack(">I", head[20:])[0])


async def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Waits until something holds, and lets others work meanwhile."""
    end = time.monotonic() + seconds
    for _ in iter(condition, True):
        assert time.monotonic() < end, "it did not come about in time"
        await asyncio.sleep(0.02)


class FakeServer:
    """A display server that greets properly, keeps what it receives and sends what it is told."""

    def __init__(self, path: Path, greeting: bytes = SERVER_INIT) -> None:
        self.path = path
        self.greeting = greeting
        self.received = bytearray()
        self.writer: asyncio.StreamWriter | None = None
        self.flood = False
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self.path)

    async def stop(self) -> None:
        if self.writer is not None:
            self.writer.transport.abort()
        if self._server is not None:
            self._server.close()
            await asyncio.sleep(0.01)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"RFB 003.008\n")
        await reader.readexactly(12)
        writer.write(b"\x01\x01")
        await reader.readexactly(1)
        writer.write(bytes(4))
        await reader.readexactly(1)
        writer.write(self.greeting)
        self.writer = writer
        pump = asyncio.create_task(self._pour()) if self.flood else None
        try:
            while data := await reader.read(65536):
                self.received += data
        except OSError:
            pass
        finally:
            writer.transport.abort()
            if pump:
                pump.cancel()

    async def _pour(self) -> None:
        picture = struct.pack(">BxHHHHHi", 0, 1, 0, 0, 640, 480, 0) + bytes(640 * 480 * 4)
        assert self.writer is not None
        while True:
            self.writer.write(picture)
            await self.writer.drain()
