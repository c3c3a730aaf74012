"""X22 and the limits of a desktop: hostile peers on both sides of the gate, byte by byte, flooding, never reading."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib.util
import os
import socket
import struct
import subprocess
import sys
import tempfile
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from visahub.singleuser import gate as gates
from visahub.singleuser import handover, rfb
from visahub.singleuser.gate import FULL, MAX_CONNECTIONS, Gate
from visahub.singleuser.rfb import Role, Violation
from visahub.singleuser.websocket import CLOSED_BY_DESKTOP, TOO_MANY, Frames

from . import rfb_client as client

RUNS = 5_000
PICTURE = struct.pack(">BxHHHHHi", 0, 1, 0, 0, 4, 4, 0) + bytes(64)


class Setup:
    """A gate with doors for programs and for browsers, before a fake display server."""

    def __init__(self, folder: Path) -> None:
        self.server = client.FakeServer(folder / "vnc.sock")
        self.gate = Gate(lambda: self.server.path)
        self.door, self.web = folder / "gate.sock", folder / "web.sock"

    async def received(self, count: int) -> bytes:
        await client.until(lambda: len(self.server.received) >= count)
        await asyncio.sleep(0.05)
        return bytes(self.server.received)

    async def gone(self) -> None:
        await client.until(lambda: self.gate.connections == 0)


@pytest.fixture
async def setup(tmp_path: Path) -> AsyncIterator[Setup]:
    made = Setup(tmp_path)
    await made.server.start()
    await made.gate.listen(made.door, Role.CONTROLLER)
    await made.gate.listen_for_browsers(made.web, Role.CONTROLLER)
    yield made
    await client.hang_up()
    for browser in opened:
        browser.close()
    opened.clear()
    await made.gate.close()
    await made.server.stop()


opened: list[Browser] = []


class Browser:
    """The other end of a websocket that was handed over."""

    def __init__(self, link: socket.socket) -> None:
        self.link = link
        self.link.setblocking(False)
        self.loop = asyncio.get_running_loop()
        opened.append(self)

    @classmethod
    async def at(cls, web: Path) -> Browser:
        ours, theirs = socket.socketpair()
        await asyncio.to_thread(handover.give, web, theirs)
        theirs.close()
        return cls(ours)

    async def send(self, data: bytes, kind: int = 0x82, mask: bytes = b"\x01\x20\xff\x7f") -> None:
        await self.raw(frame(data, kind, mask))

    async def raw(self, data: bytes) -> None:
        await asyncio.wait_for(self.loop.sock_sendall(self.link, data), 30)

    async def take(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = await asyncio.wait_for(self.loop.sock_recv(self.link, size - len(data)), 30)
            if not part:
                raise EOFError
            data += part
        return data

    async def frame(self) -> tuple[int, bytes]:
        kind, length = await self.take(2)
        if length >= 126:
            length = int.from_bytes(await self.take(2 if length == 126 else 8), "big")
        return kind, await self.take(length)

    async def content(self, size: int) -> bytes:
        """Takes binary frames until so many bytes have come."""
        data = b""
        while len(data) < size:
            kind, part = await self.frame()
            assert kind == 0x82, (kind, part)
            data += part
        return data

    async def shake_hands(self) -> None:
        assert await self.content(12) == b"RFB 003.008\n"
        await self.send(b"RFB 003.008\n")
        assert await self.content(2) == b"\x01\x01"
        await self.send(b"\x01")
        assert await self.content(4) == bytes(4)
        await self.send(b"\x01")
        assert await self.content(len(client.SERVER_INIT)) == client.SERVER_INIT

    async def ended(self) -> tuple[int, str]:
        """Reads to the end; gives the code and the reason of the close frame, 0 without one."""
        said = (0, "")
        try:
            while True:
                kind, content = await self.frame()
                if kind == 0x88:
                    said = (int.from_bytes(content[:2], "big"), content[2:].decode())
                    await self.raw(frame(content[:2], 0x88, bytes(4)))
        except (EOFError, ConnectionError):
            return said

    def close(self) -> None:
        self.link.close()


def frame(data: bytes, kind: int = 0x82, mask: bytes = b"\x01\x20\xff\x7f") -> bytes:
    head = bytes([kind, 0x80 | len(data)]) if len(data) < 126 else bytes([kind, 0xFE]) + struct.pack(">H", len(data))
    return head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))


# --- a fuzzer on both directions and on the websocket's frames ---


def rectangle(encoding: int, body: bytes) -> bytes:
    return struct.pack(">BxHHHHHi", 0, 1, 0, 0, 4, 4, encoding) + body


# One of each kind to begin with: the numbers of encodings are too long to be guessed.
SEEDS = {
    "client": [
        bytes(4) + client.PIXEL_FORMAT,
        client.set_encodings(*sorted(rfb.ENCODINGS)),
        client.update_request(4, 4),
        client.key(0x61, down=True),
        client.pointer(1, 2, 1),
        client.cut_text(b"text"),
        client.set_desktop_size(9, 9),
        client.qemu_key(0x61, 30, down=True),
        struct.pack(">BxxxIB", 248, 1, 4) + b"echo",
        struct.pack(">BBHHHH", 150, 1, 0, 0, 4, 4),
        b"\xfa\0\1\2",
        struct.pack(">Bxxxi", 6, -8) + bytes(8),
    ],
    "server": [
        rectangle(rfb.RAW, bytes(64)),
        rectangle(rfb.COPY_RECT, bytes(4)),
        rectangle(rfb.ZRLE, struct.pack(">I", 3) + b"abc"),
        rectangle(rfb.CURSOR, bytes(68)),
        rectangle(rfb.DESKTOP_SIZE, b""),
        rectangle(rfb.QEMU_KEY, b""),
        rectangle(rfb.QEMU_LED, b"\1"),
        rectangle(rfb.DESKTOP_NAME, struct.pack(">I", 3) + b"abc"),
        rectangle(rfb.EXTENDED_DESKTOP_SIZE, b"\1" + bytes(19)),
        *(rectangle(rfb.TIGHT, body) for body in (b"\x80abc", b"\x90\2ab", b"\0\2ab", b"\x40\1\1" + bytes(10))),
        struct.pack(">BxH", 0, 65535) + struct.pack(">HHHHi", 0, 0, 0, 0, rfb.LAST_RECT),
        struct.pack(">Bxxxi", 3, 4) + b"text",
        struct.pack(">Bxxxi", 3, -8) + bytes(8),
        struct.pack(">BxxxIB", 248, 1, 4) + b"echo",
        b"\2\x96",
    ],
    "frames": [
        frame(b"content"),
        frame(b"", 0x89),
        frame(b"ping", 0x89) + frame(b"part", 0x02) + frame(b"rest", 0x80),
        frame(b"\3\xe8", 0x88),
        frame(bytes(200)),
        b"\x82\xff" + bytes(7) + b"\2" + bytes(4) + b"ab",
    ],
}


@pytest.mark.parametrize("direction", ["client", "server", "frames"])
def test_x22_a_fuzzer_finds_nothing(tmp_path: Path, direction: str) -> None:
    """Guided by coverage, so that it finds its way into each message; the seed is printed with what it finds."""
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris has no wheel for this platform")
    for number, seed in enumerate(SEEDS[direction]):
        (tmp_path / f"seed-{number}").write_bytes(seed)
    program = Path(__file__).with_name("fuzz_rfb.py")
    words = [f"-runs={RUNS}", "-max_len=512", f"-artifact_prefix={tmp_path}/", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, str(program), direction, *words],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        env={**os.environ, "PYTHONPATH": str(program.parents[2])},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert f"Done {RUNS} runs" in done.stderr
    # It has found its way: many inputs that reach new lines.
    assert len(list(tmp_path.iterdir())) > len(SEEDS[direction]) + 20


# --- byte by byte, through real sockets ---


async def test_x22_byte_by_byte_nothing_changes(setup: Setup) -> None:
    sent = client.set_encodings(0) + client.update_request(4, 4) + client.key(0x61, down=True) + client.cut_text(b"ab")
    reader, writer, _ = await client.connect(setup.door)
    browser = await Browser.at(setup.web)
    for byte in sent:
        writer.write(bytes([byte]))
        await writer.drain()
    assert await setup.received(len(sent)) == sent
    assert setup.server.writer is not None
    for byte in PICTURE * 2:
        setup.server.writer.write(bytes([byte]))
        await setup.server.writer.drain()
        await asyncio.sleep(0)
    assert await reader.readexactly(2 * len(PICTURE)) == PICTURE * 2
    # And a websocket: each byte of each frame on its own.
    setup.server.received.clear()
    await browser.shake_hands()
    for byte in b"".join(frame(sent[at : at + 5]) for at in range(0, len(sent), 5)):
        await browser.raw(bytes([byte]))
    assert await setup.received(len(sent)) == sent
    for byte in PICTURE:
        setup.server.writer.write(bytes([byte]))
        await setup.server.writer.drain()
        await asyncio.sleep(0)
    assert await browser.content(len(PICTURE)) == PICTURE


async def test_x22_fragments_and_pings_are_part_of_one_stream(setup: Setup) -> None:
    browser = await Browser.at(setup.web)
    await browser.shake_hands()
    press = client.key(0x61, down=True)
    await browser.raw(frame(press[:3], 0x02) + frame(b"here?", 0x89) + frame(press[3:], 0x80))
    assert await setup.received(len(press)) == press
    assert await browser.frame() == (0x8A, b"here?")
    await browser.raw(frame(struct.pack(">H", 1000), 0x88))
    await browser.ended()
    await setup.gone()


FORBIDDEN = {
    "text": frame(b"hello", 0x81),
    "unmasked": b"\x82\x01x",
    "reserved bits": frame(b"x", 0xC2),
    "unknown kind": frame(b"x", 0x83),
    "long control": b"\x89\xfe\x00\x80" + bytes(4) + bytes(128),
    "control in fragments": frame(b"x", 0x09),
    "endless": b"\x82\xff" + b"\xff" * 8 + bytes(4) + b"\x63" * 100,
    "http": b"GET / HTTP/1.1\r\n\r\n",
    "unknown message": frame(b"\x63"),
    "long text": frame(struct.pack(">Bxxxi", 6, 1 << 30)),
}


@pytest.mark.parametrize("raw", FORBIDDEN.values(), ids=FORBIDDEN)
async def test_x22_a_hostile_browser_is_closed(setup: Setup, raw: bytes) -> None:
    browser = await Browser.at(setup.web)
    await browser.shake_hands()
    await browser.raw(raw)
    code, reason = await browser.ended()
    assert code in {0, CLOSED_BY_DESKTOP}
    assert reason in {"", "The desktop has closed the connection."}
    await setup.gone()
    assert bytes(setup.server.received) == b""


@pytest.mark.parametrize("raw", [b"\x63", b"\1\0\0\0\0\1", struct.pack(">BxHHHHHi", 0, 1, 0, 0, 4, 4, 99)])
async def test_x22_a_hostile_display_is_closed(setup: Setup, raw: bytes) -> None:
    browser = await Browser.at(setup.web)
    await browser.shake_hands()
    assert setup.server.writer is not None
    setup.server.writer.write(raw)
    assert await browser.ended() == (CLOSED_BY_DESKTOP, "The desktop has closed the connection.")
    await setup.gone()


async def test_x22_half_a_picture_is_not_followed_by_a_goodbye_within_it(setup: Setup) -> None:
    """What looked like part of the picture would be shown as one."""
    setup.server.flood = True
    browser = await Browser.at(setup.web)
    await browser.shake_hands()
    await asyncio.sleep(0.3)
    # Not read for a while: the gate is in the middle of a frame, when the browser says something that is not allowed.
    await browser.raw(frame(b"\x63"))
    await setup.gone()
    seen = b""
    with contextlib.suppress(ConnectionError):
        while part := await asyncio.wait_for(browser.loop.sock_recv(browser.link, 1 << 20), 30):
            seen = seen[-200:] + part
    assert b"The desktop has closed" not in seen


async def test_x22_pings_that_nobody_reads_the_answers_of_fill_no_memory(setup: Setup) -> None:
    browser = await Browser.at(setup.web)
    await browser.shake_hands()
    gc.collect()
    tracemalloc.start()
    sent = 0
    try:
        flood = frame(b"p" * 125, 0x89) * 1000
        async with asyncio.timeout(3):
            while sent < 500:
                await browser.loop.sock_sendall(browser.link, flood)
                sent += 1
    except TimeoutError:
        pass
    _now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # 500 rounds would be 65 MB.
    assert sent < 500, "the gate has read on without being read"
    assert peak < 5_000_000
    assert setup.gate.connections == 1


@pytest.mark.parametrize("size", [1, 7, 4096])
def test_x22_frames_of_any_mask_are_read_as_they_were(size: int) -> None:
    text = bytes(range(256)) * 300
    raw = b"".join(frame(text[at : at + 60_000], mask=os.urandom(4)) for at in range(0, len(text), 60_000))
    frames = Frames()
    seen = b"".join(frames.feed(memoryview(raw)[at : at + size]) for at in range(0, len(raw), size))
    assert seen == text
    with pytest.raises(Violation):
        frames.feed(memoryview(b"\x81\x80\0\0\0\0"))


# --- how many, and how long ---


async def test_limit_of_sockets_per_instance_is_said(setup: Setup) -> None:
    browsers = [await Browser.at(setup.web) for _ in range(MAX_CONNECTIONS)]
    for browser in browsers:
        await browser.shake_hands()
    one_more = await Browser.at(setup.web)
    assert await one_more.ended() == (TOO_MANY, FULL)
    assert FULL.endswith("Close it in another window or tab, then try again.")
    assert len(FULL.encode()) <= 123
    # One is closed, and the next finds room.
    browsers[0].close()
    await client.until(lambda: setup.gate.connections < MAX_CONNECTIONS)
    await (await Browser.at(setup.web)).shake_hands()


async def test_limit_holds_for_those_who_are_only_told_so(setup: Setup) -> None:
    """Whoever never reads the refusal cannot pile up either."""
    for _ in range(MAX_CONNECTIONS):
        await (await Browser.at(setup.web)).shake_hands()
    ends = []
    for _ in range(3 * MAX_CONNECTIONS):
        with socket.socket(socket.AF_UNIX) as link:
            link.connect(str(setup.door))
            ends.append(link.dup())
        await asyncio.sleep(0)
    await asyncio.sleep(0.2)
    assert len(setup.gate._tasks) <= 2 * MAX_CONNECTIONS
    for end in ends:
        end.close()


async def test_limit_a_browser_that_went_without_a_word_makes_room(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gates, "SILENT_SECONDS", 1.0)
    silent, answering = await Browser.at(setup.web), await Browser.at(setup.web)
    for browser in (silent, answering):
        await browser.shake_hands()

    ends = asyncio.get_running_loop().time() + 4
    while asyncio.get_running_loop().time() < ends:
        kind, content = await answering.frame()
        assert kind == 0x89
        await answering.send(content, 0x8A)
    assert setup.gate.connections == 1
    assert (await silent.ended())[0] == 0


async def test_limit_a_slow_browser_is_not_taken_for_a_silent_one(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A picture that takes long leaves no room for a ping, and is a sign of life itself."""
    monkeypatch.setattr(gates, "SILENT_SECONDS", 1.0)
    setup.server.flood = True
    browser = await Browser.at(setup.web)
    await browser.shake_hands()
    for _ in range(60):
        await asyncio.sleep(0.05)
        await browser.take(200_000)
    assert setup.gate.connections == 1


async def test_x13_only_its_own_user_hands_over_and_only_a_connection(setup: Setup) -> None:
    assert setup.web.stat().st_mode & 0o777 == 0o600
    with tempfile.TemporaryFile() as file, socket.socket(socket.AF_UNIX) as door:
        door.connect(str(setup.web))
        socket.send_fds(door, [b"\1"], [file.fileno()])
        door.settimeout(20)
        assert await asyncio.to_thread(received, door) == b""
    with socket.socket(socket.AF_UNIX) as door:
        door.connect(str(setup.web))
        door.sendall(b"\1")
        door.settimeout(20)
        assert await asyncio.to_thread(received, door) == b""
    assert setup.gate.connections == 0
    # And the door still opens.
    await (await Browser.at(setup.web)).shake_hands()


def received(door: socket.socket) -> bytes:
    try:
        return door.recv(1)
    except ConnectionResetError:
        return b""
