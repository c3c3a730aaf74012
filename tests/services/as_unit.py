"""Becomes a program as systemd would start it: `as_unit.py '{"argv": [...], ...}'`. For machines without systemd.

What is applied really, by the kernel: user, capabilities, no new privileges, the filter of system calls, no writable
and executable memory, read-only parts of the file system, hidden processes of others. See `units.py`.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import platform
import subprocess
import sys
from typing import Any

_LIBC = ctypes.CDLL(None, use_errno=True)
# By their numbers in the kernel.
_NAMES = """
CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN
SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE
MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
"""
_CAPABILITIES = _NAMES.split()
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _PR_SET_MDWE, _PR_SET_KEEPCAPS = 24, 38, 47, 65, 8
_CLONE_NEWNS = 0x00020000
_ALLOW, _EPERM = 0x7FFF0000, 0x00050000 | errno.EPERM


def main(spec: dict[str, Any]) -> None:
    os.chdir(spec["directory"])
    os.umask(int(spec["umask"], 8))
    _mounts(spec)
    for number, name in enumerate(_CAPABILITIES):
        if name not in spec["capabilities"]:
            _prctl(_PR_CAPBSET_DROP, number)
    filters = [_resolved(line) for line in spec["filters"]]
    if spec["uid"]:
        _prctl(_PR_SET_KEEPCAPS, int(bool(spec["ambient"])))
        os.setgroups([])
        os.setresgid(spec["uid"], spec["uid"], spec["uid"])
        os.setresuid(spec["uid"], spec["uid"], spec["uid"])
        _ambient(spec["ambient"])
    if spec["no_new_privileges"]:
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _filter(filters)
    if spec["no_written_code"] and tuple(map(int, platform.release().split(".")[:2])) >= (6, 3):
        _prctl(_PR_SET_MDWE, 1)
    os.execve(spec["argv"][0], spec["argv"], spec["environ"])


def _prctl(*arguments: int) -> None:
    if _LIBC.prctl(*[ctypes.c_ulong(one) for one in [*arguments, 0, 0, 0, 0][:5]]) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {arguments}")


def _ambient(names: list[str]) -> None:
    """Keeps capabilities for a program that is not root's."""
    if not names:
        return
    mask = sum(1 << _CAPABILITIES.index(name) for name in names)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    data = (ctypes.c_uint32 * 6)(mask, mask, mask, 0, 0, 0)
    if _LIBC.capset(header, data) != 0:
        raise OSError(ctypes.get_errno(), "capset")
    for name in names:
        _prctl(_PR_CAP_AMBIENT, 2, _CAPABILITIES.index(name))


def _mounts(spec: dict[str, Any]) -> None:
    """Makes the file system read-only where the unit says so, in a mount namespace of our own."""
    if _LIBC.unshare(_CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    _run("mount", "--make-rprivate", "/")
    for path in spec["writable"]:
        _run("mount", "--bind", path, path)
    for path in spec["read_only"]:
        if path != "/":
            _run("mount", "--bind", path, path)
        _run("mount", "-o", "remount,bind,ro", path)
    if spec["hide_processes"]:
        _run("mount", "-t", "proc", "-o", "hidepid=invisible", "proc", "/proc")


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


def _resolved(line: str) -> tuple[bool, set[str]]:
    """Gives whether a line of SystemCallFilter forbids, and the calls that it names."""
    forbids = line.startswith("~")
    return forbids, {call for word in line.removeprefix("~").split() for call in _calls(word)}


def _calls(word: str) -> set[str]:
    if not word.startswith("@"):
        return {word}
    command = ["systemd-analyze", "syscall-filter", word, "--no-pager"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    words = [line.strip() for line in said.splitlines()[1:]]
    return {call for one in words if one and not one.startswith("#") for call in _calls(one)}


def _filter(filters: list[tuple[bool, set[str]]]) -> None:
    """Loads the filter: the first line says whether the list is of what is allowed or of what is forbidden."""
    if not filters:
        return
    forbids_first = filters[0][0]
    listed: set[str] = set()
    for forbids, calls in filters:
        listed = listed | calls if forbids == forbids_first else listed - calls
    if not forbids_first:
        # As systemd does, whatever the list says.
        listed |= _calls("@default")
    seccomp = ctypes.CDLL("libseccomp.so.2")
    seccomp.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(seccomp.seccomp_init(_ALLOW if forbids_first else _EPERM))
    for call in listed | (set() if forbids_first else {"execve", "prctl"}):
        number = seccomp.seccomp_syscall_resolve_name(call.encode())
        if number >= 0:
            seccomp.seccomp_rule_add(context, _EPERM if forbids_first else _ALLOW, number, 0)
    if seccomp.seccomp_load(context) != 0:
        raise OSError("seccomp_load")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
