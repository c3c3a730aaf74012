"""A socket read into one buffer and written without copies, each write awaited. Used by the gate and the extension.

asyncio's streams copy whatever passes three times, which was half the price of a picture.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Self

# What a kernel with usual settings gives for one picture's worth; it may give less.
_KERNEL_BYTES = 1 << 20
# As many pieces as the kernel takes at once (IOV_MAX).
_PIECES = 512


class Link:
    """One end of a connection."""

    def __init__(self, link: socket.socket) -> None:
        link.setblocking(False)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            with contextlib.suppress(OSError):
                link.setsockopt(socket.SOL_SOCKET, option, _KERNEL_BYTES)
        self._link = link
        self._loop = asyncio.get_running_loop()

    @classmethod
    async def to(cls, path: Path) -> Self:
        """Connects to a unix socket."""
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            await asyncio.get_running_loop().sock_connect(link, os.fspath(path))
        except BaseException:
            link.close()
            raise
        return cls(link)

    async def read_into(self, buffer: memoryview) -> int:
        """Reads what is there, at least one byte; gives 0 at the end."""
        return await self._loop.sock_recv_into(self._link, buffer)

    async def read_exactly(self, size: int) -> bytes:
        """Reads so many bytes and no more; raises EOFError when the connection ends before."""
        data = bytearray(size)
        view, done = memoryview(data), 0
        while done < size:
            count = await self._loop.sock_recv_into(self._link, view[done:])
            if not count:
                raise EOFError("the connection ended")
            done += count
        return bytes(data)

    async def write(self, data: bytes | memoryview) -> None:
        await self._loop.sock_sendall(self._link, data)

    async def write_all(self, pieces: Sequence[bytes | memoryview]) -> None:
        """Writes pieces in order, with as few calls as possible; returns when the kernel has all of them."""
        for at in range(0, len(pieces), _PIECES):
            await self._write_some(pieces[at : at + _PIECES])

    async def _write_some(self, pieces: Sequence[bytes | memoryview]) -> None:
        try:
            sent = self._link.sendmsg(pieces)
        except BlockingIOError:
            sent = 0
        for piece in pieces:
            if sent >= len(piece):
                sent -= len(piece)
                continue
            await self._loop.sock_sendall(self._link, memoryview(piece)[sent:])
            sent = 0

    def hang_up(self) -> None:
        """Ends the conversation at once, whatever the other side has not read yet; whoever reads or writes sees it."""
        with contextlib.suppress(OSError):
            self._link.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Hangs up and gives the socket back; nobody may be reading or writing any more."""
        self.hang_up()
        self._link.close()
