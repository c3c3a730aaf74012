"""The Unix accounts of local instances: found, created as needed, and never changed. Used by `local.py`."""

from __future__ import annotations

import grp
import os
import pwd
import stat
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..model.account import Account, is_username
from ..model.errors import Failed, Refused

# Below are the system's own accounts.
_UID_MIN = 1000
_USERADD_SECONDS = 30
_creating = threading.Lock()


@dataclass(frozen=True)
class Person:
    """With which rights and in which home an instance runs."""

    username: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str
    shell: str = "/bin/bash"

    @property
    def rights(self) -> dict[str, Any]:
        """What our programs need to become this person."""
        return {"uid": self.uid, "gid": self.gid, "groups": list(self.groups)}


def own_person(account: Account, home_root: Path) -> Person:
    """Gives the Hub's own rights, with a home for the account: for a Hub that is not root."""
    _check(account)
    home = home_root / account.username
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Person(account.username, os.getuid(), os.getgid(), tuple(os.getgroups()), str(home))


def unix_person(account: Account, home_root: Path) -> Person:
    """Finds or creates the Unix account; raises Refused when its name, uid or gid belong to somebody else."""
    _check(account)
    if account.uid < _UID_MIN or account.gid < 1:
        raise _taken(account, f"the uid {account.uid} is reserved for the system")
    # The tools of the system lock the same files and give up when they wait for each other.
    with _creating:
        try:
            found = pwd.getpwnam(account.username)
        except KeyError:
            _create(account, home_root)
            found = pwd.getpwnam(account.username)
    if found.pw_uid != account.uid:
        raise _taken(account, f"this machine has another account of that name, with the uid {found.pw_uid}")
    # The home is not checked: it may be anything, since it is only ever used with the account's own rights.
    groups = tuple(os.getgrouplist(account.username, found.pw_gid))
    return Person(account.username, found.pw_uid, found.pw_gid, groups, found.pw_dir)


def group_number(name: str) -> int | None:
    """Gives the number of a group, None when this machine has none of that name."""
    try:
        return int(name) if name.isdigit() else grp.getgrnam(name).gr_gid
    except KeyError:
        return None


def is_system_group(name: str) -> bool:
    """Tells whether a group is the system's own: the group of an account may have any name that its user chose."""
    number = group_number(name)
    return number is not None and number < _UID_MIN


def _check(account: Account) -> None:
    if not is_username(account.username):
        raise _taken(account, "the name cannot be a Unix account")


def _taken(account: Account, why: str) -> Refused:
    return Refused(
        f"No instance was started for {account.username[:40]!r}: {why}. Ask the facility's support to settle it.",
        rule="unix-account",
        status=409,
    )


def _create(account: Account, home_root: Path) -> None:
    other = _name_of(account.uid)
    if other is not None:
        raise _taken(account, f"its uid {account.uid} belongs to the account {other} here")
    home = home_root / account.username
    if os.path.lexists(home):
        _check_home(account, str(home))
    home_root.mkdir(mode=0o755, parents=True, exist_ok=True)
    _create_group(account)
    _run(
        account,
        [
            *f"useradd --uid {account.uid} --gid {account.gid} --create-home --shell /bin/bash --no-log-init".split(),
            *("--key", "HOME_MODE=0700", "--comment", "visahub", "--home-dir", str(home), "--", account.username),
        ],
    )


def _create_group(account: Account) -> None:
    try:
        group = grp.getgrgid(account.gid)
    except KeyError:
        _run(account, ["groupadd", "--gid", str(account.gid), "--", account.username])
        return
    if group.gr_name != account.username:
        raise _taken(account, f"its gid {account.gid} belongs to the group {group.gr_name} here")


def _name_of(uid: int) -> str | None:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None


def _check_home(account: Account, home: str) -> None:
    """Refuses a home that is a link or somebody else's: it is not followed and not touched."""
    try:
        seen = os.lstat(home)
    except OSError as error:
        raise _taken(account, f"its home {home} cannot be used ({error.strerror})") from error
    if not stat.S_ISDIR(seen.st_mode) or seen.st_uid != account.uid:
        raise _taken(account, f"{home} is not a folder of the uid {account.uid}")


def _run(account: Account, command: list[str]) -> None:
    """Runs a tool of the system's shadow suite; its arguments are checked names and numbers."""
    try:
        done = subprocess.run(  # noqa: S603 - no shell
            command,
            capture_output=True,
            timeout=_USERADD_SECONDS,
            stdin=subprocess.DEVNULL,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _not_created(account, str(error)) from error
    if done.returncode:
        raise _not_created(account, done.stderr.decode(errors="replace"))


def _not_created(account: Account, log: str) -> Failed:
    return Failed(
        f"The Unix account {account.username} could not be created on this machine, so nothing was started. "
        "Tell the facility's support what the log says.",
        log=log[-4000:],
    )
