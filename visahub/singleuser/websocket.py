"""A browser's websocket on the server's side, message bounds ignored: RFB is a stream. Used by the gate.

The Jupyter server does the login and hands the open connection over (`handover.py`), so that a picture passes one
program less. Sizes and numbers: RFC 6455.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import Sequence

from .link import Link
from .rfb import Violation

_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
_FINAL, _MASKED = 0x80, 0x80
_MAX_CONTROL = 125
_MAX_REASON = 123
_MASK_BYTES = 4
_GOODBYE_SECONDS = 2.0
# Close codes: of ours (4000 and more) the page shows the text.
CLOSED_BY_DESKTOP, NO_DESKTOP, TOO_MANY = 4001, 4002, 4003


class Frames:
    """Takes the frames of a client apart, in whatever pieces they come; at most one frame's head is kept.

    `feed` gives the content of binary frames; of control frames `pings` collects what is to be answered, and
    `is_closed` tells that the client has ended the conversation. Raises Violation for what RFC 6455 forbids.
    """

    def __init__(self) -> None:
        self.pings: list[bytes] = []
        self.is_closed = False
        self._head = bytearray()
        self._control = bytearray()
        self._kind = 0
        self._left = 0
        self._mask = b""

    def feed(self, data: memoryview) -> bytes:
        out = []
        while data and not self.is_closed:
            if not self._mask:
                data = self._read_head(data)
                continue
            part, data = bytes(data[: self._left]), data[self._left :]
            content = _unmasked(part, self._mask)
            self._left -= len(part)
            self._turn(len(part))
            if self._kind >= _CLOSE:
                self._control += content
            else:
                out.append(content)
            self._end_of_frame()
        return b"".join(out)

    def _read_head(self, data: memoryview) -> memoryview:
        wanted = self._head_size()
        part, data = data[: wanted - len(self._head)], data[wanted - len(self._head) :]
        self._head += part
        if wanted == len(self._head) == 2:
            self._check_head()
        elif wanted == len(self._head):
            self._open_frame()
        return data

    def _head_size(self) -> int:
        if len(self._head) < 2:
            return 2
        more = {126: 2, 127: 8}.get(self._head[1] & 0x7F, 0)
        return 2 + more + _MASK_BYTES

    def _check_head(self) -> None:
        first, second = self._head
        kind, length = first & 0x0F, second & 0x7F
        if first & 0x70 or not second & _MASKED or kind not in {_CONTINUATION, _BINARY, _CLOSE, _PING, _PONG}:
            raise Violation(f"not a frame of a desktop's websocket: {bytes(self._head[:2]).hex()}")
        if kind >= _CLOSE and (length > _MAX_CONTROL or not first & _FINAL):
            raise Violation("a control frame that is too long")

    def _open_frame(self) -> None:
        kind, length = self._head[0] & 0x0F, self._head[1] & 0x7F
        if length > _MAX_CONTROL:
            length = int.from_bytes(self._head[2:-_MASK_BYTES], "big")
        self._kind, self._left, self._mask = kind, length, bytes(self._head[-_MASK_BYTES:])
        self._head.clear()
        self._end_of_frame()

    def _end_of_frame(self) -> None:
        if self._left:
            return
        if self._kind == _PING:
            self.pings.append(bytes(self._control))
        self.is_closed = self._kind == _CLOSE
        self._control.clear()
        self._mask = b""

    def _turn(self, done: int) -> None:
        if self._mask:
            at = done % _MASK_BYTES
            self._mask = self._mask[at:] + self._mask[:at]


class WebLink(Link):
    """A link whose other end is a browser."""

    def __init__(self, link: socket.socket) -> None:
        super().__init__(link)
        with contextlib.suppress(OSError):
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.last_heard = time.monotonic()
        self._frames = Frames()
        self._content = b""
        # A frame must not begin within another one, nor after half of one.
        self._writing = asyncio.Lock()
        self._is_torn = False
        # How many frames the kernel has taken, now and when it was last looked.
        self._written = self._seen_written = 0

    async def read_into(self, buffer: memoryview) -> int:
        while not self._content:
            if self._frames.is_closed:
                return 0
            count = await super().read_into(buffer)
            if not count:
                return 0
            self.last_heard = time.monotonic()
            self._content = self._frames.feed(buffer[:count])
            for ping in self._frames.pings:
                await self._write_frame(_PONG, [ping])
            self._frames.pings.clear()
        count = min(len(buffer), len(self._content))
        buffer[:count] = self._content[:count]
        self._content = self._content[count:]
        return count

    async def read_exactly(self, size: int) -> bytes:
        data = bytearray(size)
        view, done = memoryview(data), 0
        while done < size:
            count = await self.read_into(view[done:])
            if not count:
                raise EOFError("the connection ended")
            done += count
        return bytes(data)

    async def write(self, data: bytes | memoryview) -> None:
        await self._write_frame(_BINARY, [data])

    async def write_all(self, pieces: Sequence[bytes | memoryview]) -> None:
        if pieces:
            await self._write_frame(_BINARY, pieces)

    async def ping(self) -> None:
        """Asks whether the browser is still there; while a picture is under way, a step forward since says the same."""
        if not self._writing.locked():
            await self._write_frame(_PING, [b""])
        elif self._written != self._seen_written:
            self._seen_written = self._written
            self.last_heard = time.monotonic()

    async def say_goodbye(self, code: int, reason: str) -> None:
        """Closes with a code and a reason that the page shows; waits a moment, so that both arrive."""
        if self._writing.locked() or self._is_torn or self._frames.is_closed:
            return
        with contextlib.suppress(OSError, TimeoutError, Violation):
            async with asyncio.timeout(_GOODBYE_SECONDS):
                await super().write(goodbye(code, reason))
                rest = memoryview(bytearray(4096))
                while not self._frames.is_closed and (count := await super().read_into(rest)):
                    self._frames.feed(rest[:count])

    async def _write_frame(self, kind: int, pieces: Sequence[bytes | memoryview]) -> None:
        async with self._writing:
            self._is_torn = True
            await super().write_all([_head(kind, sum(map(len, pieces))), *pieces])
            self._is_torn = False
            self._written += 1


def goodbye(code: int, reason: str) -> bytes:
    """Gives the frame that closes a conversation with a code and a reason."""
    content = struct.pack(">H", code) + reason.encode()[:_MAX_REASON]
    return _head(_CLOSE, len(content)) + content


def _head(kind: int, length: int) -> bytes:
    first = _FINAL | kind
    if length <= _MAX_CONTROL:
        return bytes((first, length))
    return struct.pack(">BBH", first, 126, length) if length < 1 << 16 else struct.pack(">BBQ", first, 127, length)


def _unmasked(data: bytes, mask: bytes) -> bytes:
    size = len(data)
    if mask == bytes(_MASK_BYTES) or not size:
        return data
    long = (mask * (size // _MASK_BYTES + 1))[:size]
    return (int.from_bytes(data, "big") ^ int.from_bytes(long, "big")).to_bytes(size, "big")
