"""Measures how much a gate grows before a reader that never reads: `python -m tests.singleuser.slow_gate DIR SIDE`."""

from __future__ import annotations

import asyncio
import multiprocessing
import sys
import time
from pathlib import Path

from visahub.singleuser.gate import Gate
from visahub.singleuser.rfb import Role

from . import rfb_client as client

_SECONDS = 4.0


def resident() -> int:
    """Gives this process's memory in KiB."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS:"))


def pouring_server(path: Path) -> None:
    """A display server that sends pictures without end."""
    asyncio.run(_pour(path))


async def _pour(path: Path) -> None:
    server = client.FakeServer(path)
    server.flood = True
    await server.start()
    await asyncio.sleep(60)


def deaf_client(path: Path) -> None:
    """Connects and never reads."""
    asyncio.run(_listen_not(path))


async def _listen_not(path: Path) -> None:
    # The writer is kept: a forgotten one closes its connection.
    _reader, writer, _ = await client.connect(path)
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    await asyncio.sleep(60)


def pouring_client(path: Path) -> None:
    """A client that sends keys without end."""
    asyncio.run(_pour_keys(path))


async def _pour_keys(path: Path) -> None:
    _, writer, _ = await client.connect(path)
    while True:
        writer.write(client.key(0x61, down=True) * 8192)
        await writer.drain()


def deaf_server(path: Path) -> None:
    """Greets and never reads again."""
    asyncio.run(_greet_only(path))


async def _greet_only(path: Path) -> None:
    await asyncio.start_unix_server(_greet, path)
    await asyncio.sleep(60)


async def _greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"RFB 003.008\n\x01\x01" + bytes(4) + client.SERVER_INIT)
    await reader.readexactly(14)
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    await asyncio.sleep(60)


async def measure(folder: Path, direction: str) -> int:
    display, door = folder / "vnc.sock", folder / "gate.sock"
    parts = {"server": (pouring_server, deaf_client), "client": (deaf_server, pouring_client)}[direction]
    context = multiprocessing.get_context("spawn")
    server, viewer = (
        context.Process(target=part, args=(path,)) for part, path in zip(parts, (display, door), strict=True)
    )
    gate = Gate(lambda: display)
    await gate.listen(door, Role.CONTROLLER)
    server.start()
    viewer.start()
    await client.until(lambda: gate.connections > 0, 60)
    await asyncio.sleep(1.0)
    before, until = resident(), time.monotonic() + _SECONDS
    most = before
    while time.monotonic() < until:
        await asyncio.sleep(0.1)
        most = max(most, resident())
    assert gate.connections == 1, "the connection did not last"
    for process in (viewer, server):
        process.kill()
    await gate.close()
    return most - before


if __name__ == "__main__":
    print(asyncio.run(measure(Path(sys.argv[1]), sys.argv[2])))
