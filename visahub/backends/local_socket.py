"""The socket of a local instance is made by its account, and used only when it leads nowhere else. For `local_runs`.

Hub and proxy open it with their own rights. So its directory is first taken from the account ("sealed"): from then on
the account cannot put a link to somebody else's socket in its place.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ..model.errors import Failed

SOCKET = "s"
# Others pass, so that accounts reach their own directories; they list nothing.
PASSABLE = 0o711


def sealed(folder: Path, uid: int) -> bool:
    """Seals the directory once the socket of this account is in it; tells whether it is. Raises Failed for a trick."""
    try:
        web = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        if not _is_socket(web, uid):
            return False
        # Both, since a Hub may have been killed between taking it and closing it.
        if uid != os.geteuid() and not _is_taken(web):
            os.fchown(web, os.geteuid(), os.getegid())
            # The mode also masks whatever access list the account has set. The account may pass still: it may be
            # between making the socket and setting the socket's own mode.
            os.fchmod(web, PASSABLE)
        # It may have been exchanged until a moment ago; from now on it cannot be.
        if not (_is_socket(web, uid) and _has_alias(web)):
            raise Failed("The instance's socket is not its own, so it was not used. Start the instance again.")
        return True
    finally:
        os.close(web)


def open_to(folder: Path, uid: int, gid: int) -> None:
    """Lets a group use the socket of a sealed directory."""
    web = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        # Only we can exchange it by now. Its owner may close it again, which shuts out nobody but itself.
        if os.fstat(web).st_uid == os.geteuid() and _is_socket(web, uid):
            os.chown(SOCKET, -1, gid, dir_fd=web, follow_symlinks=False)
            os.chmod(SOCKET, 0o660, dir_fd=web)
            # Where accounts are the Hub's own, sealing has left it as it was.
            os.fchmod(web, PASSABLE)
    finally:
        os.close(web)


def _is_socket(directory: int, uid: int) -> bool:
    try:
        seen = os.stat(SOCKET, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    # One name only: a hard link could lead to the socket of another program.
    return stat.S_ISSOCK(seen.st_mode) and seen.st_uid == uid and seen.st_nlink == 1


def _is_taken(directory: int) -> bool:
    seen = os.fstat(directory)
    return seen.st_uid == os.geteuid() and stat.S_IMODE(seen.st_mode) == PASSABLE


def _has_alias(directory: int) -> bool:
    """Makes the socket's second name, in place of whatever the account may have put there; tells whether it stands.

    The Hub keeps the port 80 with a unix socket's address, which the proxy then takes for part of the path.
    """
    alias = f"{SOCKET}:80"
    for _ in range(2):
        try:
            if os.readlink(alias, dir_fd=directory) == SOCKET:
                return True
        except FileNotFoundError:
            os.symlink(SOCKET, alias, dir_fd=directory)
            continue
        except OSError:
            pass
        try:
            os.unlink(alias, dir_fd=directory)
            os.symlink(SOCKET, alias, dir_fd=directory)
        except OSError:
            return False
    return False
