"""Whatever the desktop's programs leave behind is found and ended."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import asyncio, os, subprocess, sys, time
from visahub.singleuser import processes
processes.adopt_orphans()
# One in a session of its own whose parent has gone, and one that does not listen to SIGTERM.
subprocess.run(["setsid", "--fork", "sleep", "1000"])
subprocess.Popen(["sh", "-c", "trap '' TERM; sleep 1000 & wait; sleep 1000"])
time.sleep(0.5)
below = processes.descendants(os.getpid())
assert len(below) >= 3, below
asyncio.run(processes.end_all(set()))
print(*below)
"""


def test_detached_and_deaf_processes_end() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    for pid in done.stdout.split():
        assert not Path(f"/proc/{pid}").exists() or os.getpid() == int(pid)
