"""Prepares an account's home for one start: the links to its experiments' data, and their list for JupyterLab.

Run as a program by `local_processes.as_user`, with the account's rights, never as root: whatever links the account
has planted in its home lead no further than the account itself may go. Standard library only; orders as JSON from
stdin, the answer as JSON on stdout.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import sys
from typing import Any

FOLDER = "experiments"
# Which links are ours: {name: target}. Only these are ever removed.
MANIFEST = ".visahub-links.json"
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


def main() -> None:
    """Makes the links and writes the list; answers with the links that now stand and what the user should know."""
    orders = json.loads(sys.stdin.buffer.read())
    _become(orders)
    home = Home(orders["home"], set(orders["kept"]))
    rows = [home.link(row) for row in orders["experiments"]]
    home.tidy()
    handle = os.open(orders["list"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with open(handle, "w", encoding="utf-8") as file:
        json.dump(rows, file, ensure_ascii=False, indent=1)
    notes = [row["note"] for row in rows if row["note"]]
    json.dump({"links": sorted(home.chosen), "notes": notes}, sys.stdout)


def _become(orders: dict[str, Any]) -> None:
    """Takes the account's rights before anything is touched. Not left to `subprocess`: the Python of a root-run Hub may
    lie where the account cannot start it."""
    os.umask(0o077)
    if os.geteuid() == 0 and orders["uid"] != 0:
        os.setgroups(orders["groups"])
        os.setresgid(orders["gid"], orders["gid"], orders["gid"])
        os.setresuid(orders["uid"], orders["uid"], orders["uid"])


class Home:
    """The folder `~/experiments`. `kept` are names that other running instances of the account still use."""

    def __init__(self, home: str, kept: set[str]) -> None:
        self._folder = os.path.join(home, FOLDER)
        self._kept = kept
        self._ours: dict[str, str] = {}
        self.chosen: dict[str, str] = {}
        self._trouble = ""
        try:
            os.makedirs(self._folder, mode=0o755, exist_ok=True)
        except OSError as error:
            self._trouble = f"~/{FOLDER} cannot be used: {error.strerror}. Move away what is there."
            return
        # No manifest, or a broken one: nothing is known to be ours, so that nothing is removed.
        with contextlib.suppress(OSError, ValueError, RecursionError):
            read = json.loads(_content(os.path.join(self._folder, MANIFEST)))
            if isinstance(read, dict):
                self._ours = {str(name): str(target) for name, target in read.items() if _is_name(str(name))}

    def link(self, row: dict[str, Any]) -> dict[str, Any]:
        """Links one experiment's data; gives its row with `link` (relative to the home) and `note`."""
        given = {key: value for key, value in row.items() if key != "id"}
        given.update(link="", note="")
        proposal, target = row["proposal"], row["path"]
        if not target:
            given["note"] = f"{proposal} has no data yet."
        elif not os.path.isdir(target):
            given["note"] = f"The data of {proposal} are not here: {target} is missing or not open to you."
        elif self._trouble:
            given["note"] = self._trouble
        else:
            plain = _safe(proposal)
            for name in (plain, f"{plain}-{_safe(str(row['id']))}"[:200]):
                if self._place(name, target):
                    given["link"] = f"{FOLDER}/{name}"
                    return given
            given["note"] = f"~/{FOLDER}/{plain} is taken. The data of {proposal} are in {target}."
        return given

    def _place(self, name: str, target: str) -> bool:
        """Makes the link `name` lead to `target`; False when something else has that name."""
        path = os.path.join(self._folder, name)
        there = _target(path)
        if name in self.chosen and self.chosen[name] != target:
            return False
        if there != target:
            if self._may_remove(name, there):
                os.unlink(path)
            try:
                os.symlink(target, path)
            except OSError:
                return False
            self._ours[name] = target
        self.chosen[name] = target
        return True

    def _may_remove(self, name: str, there: str | None) -> bool:
        return there is not None and self._ours.get(name) == there and name not in self._kept

    def tidy(self) -> None:
        """Removes our links of experiments that no running instance has chosen."""
        for name in [name for name in self._ours if name not in self.chosen and name not in self._kept]:
            path = os.path.join(self._folder, name)
            if self._may_remove(name, _target(path)):
                with contextlib.suppress(OSError):
                    os.unlink(path)
            del self._ours[name]
        if self._trouble:
            return
        draft = os.path.join(self._folder, f"{MANIFEST}.{os.getpid()}")
        with contextlib.suppress(OSError):
            with open(draft, "x", encoding="utf-8") as file:
                json.dump(self._ours, file)
            os.replace(draft, os.path.join(self._folder, MANIFEST))


def _content(path: str) -> bytes:
    """Reads a file of the account; a pipe or a device in its place must not make a start wait."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(handle, "rb") as file:
        return file.read(1_000_000) if stat.S_ISREG(os.fstat(handle).st_mode) else b""


def _target(path: str) -> str | None:
    """Gives where a symlink leads, None for anything else."""
    try:
        return os.readlink(path)
    except OSError:
        return None


def _is_name(name: str) -> bool:
    return bool(name) and name == _safe(name)


def _safe(text: str) -> str:
    """Makes one harmless file name of a proposal or an id."""
    return _UNSAFE.sub("-", text).lstrip(".-")[:100] or "experiment"


if __name__ == "__main__":
    main()
