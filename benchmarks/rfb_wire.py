"""A small, fast RFB client for measurements: over a unix socket or over a websocket, with the same code above both."""

from __future__ import annotations

import base64
import os
import select
import socket
import struct
import time
from pathlib import Path

_BUFFER = 1 << 20
_PATIENCE_SECONDS = 60.0


class Wire:
    """A connection that gives bytes in order; a websocket's frames are taken off as they come."""

    def __init__(self, link: socket.socket, *, is_websocket: bool) -> None:
        link.settimeout(_PATIENCE_SECONDS)
        self._link = link
        self._is_websocket = is_websocket
        self._buffer = memoryview(bytearray(_BUFFER))
        self._raw = self._buffer[:0]
        # What is left of the frame that is being read.
        self._left = 0

    @classmethod
    def unix(cls, path: Path) -> Wire:
        link = socket.socket(socket.AF_UNIX)
        link.connect(str(path))
        return cls(link, is_websocket=False)

    @classmethod
    def websocket(cls, port: int, path: str, token: str) -> Wire:
        link = socket.create_connection(("127.0.0.1", port), _PATIENCE_SECONDS)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # As browsers do, compression is offered.
        link.sendall(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}\r\n"
            "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
            f"Authorization: token {token}\r\n\r\n".encode()
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = link.recv(1)
            if not byte:
                break
            head += byte
        if b" 101 " not in head.split(b"\r\n")[0]:
            raise OSError(f"no websocket at {path}: {head[:200]!r}")
        return cls(link, is_websocket=True)

    def close(self) -> None:
        self._link.close()

    def send(self, data: bytes) -> None:
        if self._is_websocket:
            length = bytes([0x80 | len(data)]) if len(data) < 126 else b"\xfe" + struct.pack(">H", len(data))
            data = b"\x82" + length + bytes(4) + data
        self._link.sendall(data)

    def take(self, size: int) -> bytes:
        """Gives the next bytes."""
        found = b""
        while len(found) < size:
            found += self._next(size - len(found))
        return found

    def skip(self, size: int) -> None:
        """Reads bytes that nobody looks at."""
        while size:
            size -= len(self._next(size))

    def has_more(self, seconds: float) -> bool:
        """Tells whether something comes within a time."""
        return bool(self._raw) or bool(select.select([self._link], [], [], seconds)[0])

    def _next(self, most: int) -> memoryview:
        if self._is_websocket and not self._left:
            self._left = self._frame()
            if not self._left:
                return self._raw[:0]
        if not self._raw:
            self._receive(0)
        size = min(most, len(self._raw), self._left) if self._is_websocket else min(most, len(self._raw))
        data, self._raw = self._raw[:size], self._raw[size:]
        if self._is_websocket:
            self._left -= size
        return data

    def _frame(self) -> int:
        kind, length = self._head(2)
        if kind & 0x70:
            raise OSError("the websocket compresses")
        if kind & 0x0F == 8:
            raise OSError("the websocket was closed")
        if length == 126:
            (length,) = struct.unpack(">H", self._head(2))
        elif length == 127:
            (length,) = struct.unpack(">Q", self._head(8))
        if kind & 0x0F in {9, 10}:
            # Pings carry a few bytes.
            self._head(length)
            return 0
        return int(length)

    def _head(self, size: int) -> bytes:
        while len(self._raw) < size:
            rest = bytes(self._raw)
            self._buffer[: len(rest)] = rest
            self._receive(len(rest))
        data, self._raw = bytes(self._raw[:size]), self._raw[size:]
        return data

    def _receive(self, kept: int) -> None:
        count = self._link.recv_into(self._buffer[kept:])
        if not count:
            raise OSError("the connection ended")
        self._raw = self._buffer[: kept + count]


class Viewer:
    """One RFB connection, as far as the measurements go."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        wire.take(12)
        wire.send(b"RFB 003.008\n")
        wire.take(wire.take(1)[0])
        wire.send(b"\1")
        wire.take(4)
        wire.send(b"\1")
        head = wire.take(24)
        self.width, self.height = struct.unpack(">HH", head[:4])
        wire.skip(struct.unpack(">I", head[20:])[0])

    def speak(self, *encodings: int) -> None:
        self.wire.send(struct.pack(f">BxH{len(encodings)}i", 2, len(encodings), *encodings))

    def ask(self, *, incremental: bool) -> None:
        self.wire.send(struct.pack(">BBHHHH", 3, incremental, 0, 0, self.width, self.height))

    def press(self, keysym: int) -> None:
        self.wire.send(struct.pack(">BBxxI", 4, 1, keysym))

    def release(self, keysym: int) -> None:
        self.wire.send(struct.pack(">BBxxI", 4, 0, keysym))

    def update(self) -> int:
        """Reads until one update is complete; gives its pixels. Only the Raw encoding may come."""
        while (kind := self.wire.take(1)[0]) != 0:
            if kind == 3:
                self.wire.skip(struct.unpack(">I", self.wire.take(7)[3:])[0])
            elif kind != 2:
                raise OSError(f"unexpected message {kind}")
        pixels = 0
        for _ in range(struct.unpack(">xH", self.wire.take(3))[0]):
            width, height, encoding = struct.unpack(">4xHHi", self.wire.take(12))
            if encoding != 0:
                raise OSError(f"unexpected encoding {encoding}")
            self.wire.skip(width * height * 4)
            pixels += width * height
        return pixels

    def screens(self, count: int) -> float:
        """Gives the seconds for so many full screens, asked one after the other."""
        began = time.perf_counter()
        for _ in range(count):
            self.ask(incremental=False)
            left = self.width * self.height
            while left > 0:
                left -= self.update()
        return time.perf_counter() - began

    def reaction(self, keysym: int) -> float:
        """Gives the seconds from a key press to the pixels that it changes."""
        while self.wire.has_more(0.05):
            self.update()
            self.ask(incremental=True)
        began = time.perf_counter()
        self.press(keysym)
        self.update()
        seconds = time.perf_counter() - began
        self.release(keysym)
        self.ask(incremental=True)
        return seconds
