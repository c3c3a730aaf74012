"""The gate between browser and display server, with a fake server: roles, hostile peers, slow readers, memory."""

from __future__ import annotations

import asyncio
import os
import stat
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from visahub.singleuser.gate import FULL, MAX_CONNECTIONS, Gate
from visahub.singleuser.rfb import Role

from . import rfb_client as client


class Setup:
    """A gate with a door for each role before a fake display server."""

    def __init__(self, folder: Path) -> None:
        self.server = client.FakeServer(folder / "vnc.sock")
        self.gate = Gate(lambda: self.server.path)
        self.doors = {role: folder / f"{role.value}.sock" for role in Role}

    async def received(self, count: int) -> bytes:
        await client.until(lambda: len(self.server.received) >= count)
        await asyncio.sleep(0.05)
        return bytes(self.server.received)


@pytest.fixture
async def setup(tmp_path: Path) -> AsyncIterator[Setup]:
    made = Setup(tmp_path)
    await made.server.start()
    for role, path in made.doors.items():
        await made.gate.listen(path, role)
    yield made
    await client.hang_up()
    await made.gate.close()
    await made.server.stop()


async def test_only_the_owner_may_open_the_door(setup: Setup) -> None:
    for path in setup.doors.values():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_the_controller_acts_and_is_seen(setup: Setup) -> None:
    _, writer, init = await client.connect(setup.doors[Role.CONTROLLER])
    assert init == client.SERVER_INIT
    assert setup.gate.last_input is None
    writer.write(client.update_request())
    await setup.received(10)
    assert setup.gate.last_input is None, "an open tab is not activity"
    writer.write(client.key(0x61, down=True))
    assert await setup.received(18) == client.update_request() + client.key(0x61, down=True)
    assert setup.gate.last_input is not None
    assert abs(setup.gate.last_input - time.time()) < 10
    writer.close()


async def test_a_viewer_only_looks(setup: Setup) -> None:
    reader, writer, _ = await client.connect(setup.doors[Role.VIEWER])
    writer.write(client.set_encodings(1, 7, -308) + client.key(0x61, down=True) + client.cut_text(b"x"))
    for byte in client.pointer(1, 2, 1) + client.qemu_key(0x61, 30, down=True) + client.set_desktop_size(90, 90):
        writer.write(bytes([byte]))
        await writer.drain()
    writer.write(client.update_request())
    expected = client.set_encodings(1, 7, -308) + client.update_request()
    assert await setup.received(len(expected)) == expected
    assert setup.gate.last_input is None
    assert setup.server.writer is not None
    setup.server.writer.write(struct.pack(">BxxxI", 3, 6) + b"secret" + b"\2")
    assert await reader.readexactly(1) == b"\2"
    writer.close()


@pytest.mark.parametrize("raw", [b"\x63", b"\xff\x05", b"GET / HTTP/1.1\r\n\r\n"])
async def test_an_unknown_message_closes(setup: Setup, raw: bytes) -> None:
    reader, writer, _ = await client.connect(setup.doors[Role.CONTROLLER])
    writer.write(raw)
    await ended(reader)
    assert bytes(setup.server.received) == b""
    await gone(setup)


@pytest.mark.parametrize("raw", [b"\x63", b"\1\0\0\0\0\1", struct.pack(">BxHHHHHi", 0, 1, 0, 0, 4, 4, 99)])
async def test_a_hostile_server_is_closed(setup: Setup, raw: bytes) -> None:
    reader, _, _ = await client.connect(setup.doors[Role.CONTROLLER])
    assert setup.server.writer is not None
    setup.server.writer.write(raw)
    await ended(reader)
    await gone(setup)


@pytest.mark.parametrize(
    "greeting",
    [b"", bytes(24), client.SERVER_INIT[:20] + struct.pack(">I", 2**31) + bytes(100)],
    ids=["nothing", "zeros", "long name"],
)
async def test_a_wrong_greeting_of_the_server_is_closed(setup: Setup, greeting: bytes) -> None:
    setup.server.greeting = greeting
    with pytest.raises((asyncio.IncompleteReadError, OSError, TimeoutError)):
        async with asyncio.timeout(2 if not greeting else 20):
            await client.connect(setup.doors[Role.CONTROLLER])


@pytest.mark.parametrize("version", [b"RFB 003.003\n", b"RFB 009.009\n", b"GET / HTTP/1"])
async def test_another_protocol_is_closed(setup: Setup, version: bytes) -> None:
    reader, writer = await client.dial(setup.doors[Role.CONTROLLER])
    await reader.readexactly(12)
    writer.write(version)
    await ended(reader)


async def test_both_sides_end_together(setup: Setup) -> None:
    reader, writer, _ = await client.connect(setup.doors[Role.CONTROLLER])
    assert setup.gate.connections == 1
    assert setup.server.writer is not None
    setup.server.writer.transport.abort()
    await ended(reader)
    await gone(setup)
    writer.close()


async def test_too_many_connections_are_refused(setup: Setup) -> None:
    opened = [await client.connect(setup.doors[Role.VIEWER]) for _ in range(MAX_CONNECTIONS)]
    reader, writer = await client.dial(setup.doors[Role.VIEWER])
    assert await reader.readexactly(12) == b"RFB 003.008\n"
    writer.write(b"RFB 003.008\n")
    answer = await reader.read()
    assert answer == struct.pack(">BI", 0, len(FULL)) + FULL.encode()
    assert "Close it in another window" in FULL
    for _, writer, _ in opened:
        writer.close()
    await gone(setup)


@pytest.mark.parametrize("direction", ["server", "client"])
def test_a_reader_that_never_reads_costs_no_memory(tmp_path: Path, direction: str) -> None:
    """In a process of its own, so that only the gate is measured."""
    script = Path(__file__).with_name("slow_gate.py")
    done = subprocess.run(
        [sys.executable, "-m", "tests.singleuser.slow_gate", str(tmp_path), direction],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=script.parents[2],
        env={**os.environ, "PYTHONPATH": str(script.parents[2])},
    )
    assert done.returncode == 0, done.stderr
    grown = int(done.stdout.split()[-1])
    assert grown < 10 * 1024, f"{grown} KiB"


async def ended(reader: asyncio.StreamReader) -> None:
    async with asyncio.timeout(20):
        try:
            while await reader.read(65536):
                pass
        except ConnectionResetError:
            pass


async def gone(setup: Setup) -> None:
    await client.until(lambda: setup.gate.connections == 0)
