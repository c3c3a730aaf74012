"""Hands an open connection from the Jupyter server to the desktop daemon, as a file descriptor over a unix socket."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from pathlib import Path

_SECONDS = 10.0
_HERE, _TAKEN = b"\1", b"\2"


def give(path: Path, connection: socket.socket) -> None:
    """Gives a connection away; returns when the daemon has it. Raises OSError when it has not."""
    with socket.socket(socket.AF_UNIX) as door:
        door.settimeout(_SECONDS)
        door.connect(os.fspath(path))
        socket.send_fds(door, [_HERE], [connection.fileno()])
        if door.recv(1) != _TAKEN:
            raise ConnectionResetError("the desktop did not take the connection")


async def take(door: socket.socket) -> socket.socket:
    """Takes the connection that somebody gives who has come through the door; raises OSError without one."""
    return await asyncio.to_thread(_take, door)


def _take(door: socket.socket) -> socket.socket:
    with door:
        _pid, uid, _gid = struct.unpack("3i", door.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid != os.geteuid():
            raise PermissionError("another user is at the door")
        door.settimeout(_SECONDS)
        # Two would fit, so that a second one is seen (and closed) instead of staying open unknown.
        _, numbers, _, _ = socket.recv_fds(door, 1, 2)
        given = [socket.socket(fileno=number) for number in numbers]
        if len(given) != 1 or given[0].type != socket.SOCK_STREAM:
            for each in given:
                each.close()
            raise ConnectionResetError("no connection was given")
        door.sendall(_TAKEN)
        return given[0]
