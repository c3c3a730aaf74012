"""What keeps instances from starting on this machine, as the operators should know before a user does.

Used by `local.py`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

_ROOM_BYTES = 20 * 2**20
_TOOLS = ("useradd", "groupadd")


def of_run_root(path: Path, longest: Path) -> Iterator[str]:
    """Looks at the place of sockets and logs; `longest` is the longest path that is made below."""
    other = "let LocalBackend.run_root name another place"
    if len(os.fsencode(longest)) > 99 or str(longest) != str(longest).lower():
        yield (
            f"{path} is too long for unix sockets, or has capital letters, which get lost in addresses: nothing can "
            "start. Let LocalBackend.run_root name a shorter place in lower-case letters, such as /run/visahub."
        )
    there = next(one for one in (path, *path.parents) if one.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK) or _is_read_only(there):
        yield f"{there} cannot be written to, so nothing can start. Make {path} writable for the Hub, or {other}."
    elif there == path and path.stat().st_uid != os.geteuid():
        yield f"{path} does not belong to the Hub, so nothing can start. Remove it, or {other}."
    elif (free := shutil.disk_usage(there).free) < _ROOM_BYTES:
        yield f"Only {free // 2**20} MB are free in {there}, so nothing can start. Make room there, or {other}."


def of_programs(python: str, is_open: bool, commands: Mapping[str, list[str]]) -> Iterator[str]:
    """Looks at what instances run; `is_open` tells whether other accounts may run our Python."""
    if not is_open:
        yield (
            f"Accounts may not run the Hub's Python: {os.path.realpath(python)} lies in a closed directory. Install "
            "visahub where all may read it (/opt/visahub), or set LocalBackend.commands."
        )
    for image, command in commands.items():
        if not command or shutil.which(command[0]) is None:
            yield (
                f"LocalBackend.commands: {(command or [''])[0]!r} of the image {image!r} is not a program of this "
                "machine. Install it, or correct the path."
            )


def of_accounts(home_root: Path) -> Iterator[str]:
    """Looks at what is needed to make Unix accounts."""
    missing = [tool for tool in _TOOLS if shutil.which(tool, path="/usr/sbin:/usr/bin:/sbin:/bin") is None]
    if missing:
        yield f"{missing[0]} is missing, so no Unix account can be made. Run: apt-get install passwd"
    if home_root.exists() and not home_root.is_dir():
        yield f"{home_root} is not a folder, so nobody has a home. Let LocalBackend.home_root name one."


def _is_read_only(path: Path) -> bool:
    # Root may "write" to a read-only file system as far as permissions tell.
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
