"""Removes a directory that an account has filled as it liked. Used by `local_runs.py`, often with root's rights.

Works by descriptors: nothing is followed, and what is mounted somewhere inside is let go, never emptied. Each directory
is taken from the account before it is looked at, and what lies deeper is lifted up, so that three open files and little
memory do for a tree of any depth and any number of files.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import secrets
import stat
import time
from itertools import islice
from pathlib import Path

_SECONDS = 30.0
# Names that are held in memory at a time.
_BATCH = 1000
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# umount2(2): detach at once, whoever still uses it, and do not follow a link.
_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8


def remove_tree(path: Path) -> None:
    """Removes a directory whose own parent is ours; an absent one is right. Raises OSError when something stays."""
    try:
        parent = os.open(path.parent, _DIRECTORY)
    except FileNotFoundError:
        return
    try:
        _Removal(parent, path.name).run()
    finally:
        os.close(parent)


class _Removal:
    """One removal; gives up after a while when somebody fills the tree faster than it is emptied."""

    def __init__(self, parent: int, name: str) -> None:
        self._parent = parent
        self._name = name
        self._until = time.monotonic() + _SECONDS

    def run(self) -> None:
        try:
            top = _taken(self._parent, self._name)
        except FileNotFoundError:
            return
        try:
            while names := self._names(top):
                for name in names:
                    self._remove(top, name)
        finally:
            os.close(top)
        os.rmdir(self._name, dir_fd=self._parent)

    def _names(self, directory: int) -> list[str]:
        if time.monotonic() > self._until:
            raise OSError(errno.ENOTEMPTY, "is filled again and again", self._name)
        with os.scandir(directory) as entries:
            return [entry.name for entry in islice(entries, _BATCH)]

    def _remove(self, top: int, name: str) -> None:
        """Removes what has one name; of a directory that is not empty, lifts the directories in it to the top."""
        if _gone(top, name):
            return
        below = _taken(top, name)
        try:
            if os.fstat(below).st_dev != os.fstat(top).st_dev:
                raise OSError(errno.EXDEV, "is on another file system", name)
            while names := self._names(below):
                for child in names:
                    if not _gone(below, child):
                        os.close(_taken(below, child))
                        os.rename(child, secrets.token_hex(8), src_dir_fd=below, dst_dir_fd=top)
        finally:
            os.close(below)
        os.rmdir(name, dir_fd=top)


def _gone(directory: int, name: str) -> bool:
    """Removes a file, a link or an empty directory; tells whether it has gone: a filled directory has not."""
    try:
        os.unlink(name, dir_fd=directory)
        return True
    except FileNotFoundError:
        return True
    except (IsADirectoryError, PermissionError):
        pass
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
    for _ in range(2):
        try:
            os.rmdir(name, dir_fd=directory)
            return True
        except FileNotFoundError:
            return True
        except OSError as error:
            if error.errno == errno.ENOTEMPTY:
                return False
            if error.errno != errno.EBUSY:
                raise
        # Something is mounted there, such as the account's own remote disk.
        _detach(directory, name)
    return False


def _taken(directory: int, name: str) -> int:
    """Opens a directory and takes it from the account, which can then put nothing into it any more."""
    # Its mode may be closed to us, too.
    handle = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        same = f"/proc/self/fd/{handle}"
        seen = os.fstat(handle)
        if seen.st_uid != os.geteuid():
            os.chown(same, os.geteuid(), os.getegid())
        if stat.S_IMODE(seen.st_mode) != 0o700:
            os.chmod(same, 0o700)
        return os.open(same, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    finally:
        os.close(handle)


def _detach(directory: int, name: str) -> None:
    path = f"/proc/self/fd/{directory}/{name}"
    with contextlib.suppress(AttributeError):
        if ctypes.CDLL(None, use_errno=True).umount2(os.fsencode(path), _MNT_DETACH | _UMOUNT_NOFOLLOW):
            raise OSError(ctypes.get_errno(), "is mounted and could not be let go", name)
