"""Two Hubs with up to a thousand running instances each, ours and a stock one, at one place outside of both."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from tests.services.hub import ROOT, free_ports, wait_until

from .hubs import OurHub, StockHub

USERS = [f"crowd{number}" for number in range(25)]
_AT_ONCE = 3
_TRIES = 5
_OURS = """
c.Visahub.backends = ["benchmarks.crowd.CrowdBackend"]
c.CrowdBackend.port = {port}
c.Visahub.environments = [{{"id": "lab", "name": "Lab", "images": {{"crowd": "any"}}}}]
c.Visahub.hardware = [
    {{"id": "small", "name": "Small", "backend": "crowd", "place": "Here", "cores": 1, "memory_mb": 512}}
]
c.JupyterHub.active_server_limit = 0
"""
_STOCK = """
c.JupyterHub.spawner_class = "benchmarks.crowd.{spawner}"
c.FreeSpawner.place_port = {port}
"""


@contextlib.contextmanager
def place() -> Iterator[int]:
    """Runs the place; gives its port."""
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "benchmarks.place", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL)
    try:
        wait_until(lambda: _listens(port), "the place listens", process)
        yield port
    finally:
        process.terminate()
        process.wait(10)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def our_hub(state: Path, port: int) -> OurHub:
    """Our Hub; its rounds are asked for by hand."""
    return OurHub(state, users=USERS, more=_OURS.format(port=port), with_portal=False)


def stock_hub(state: Path, port: int, spawner: str, more: str = "") -> StockHub:
    return StockHub(state, users=USERS, more=_STOCK.format(spawner=spawner, port=port) + more)


def fill(hub: OurHub | StockHub, count: int) -> None:
    """Starts servers until there are `count`, as a user's request does."""
    headers = {"Authorization": f"token {hub.admin_token}"}
    with httpx.Client(base_url=hub.api_url, headers=headers, timeout=180) as client:
        have = sum(len(user["servers"]) for user in client.get("/users", params={"limit": 200}).json())

        def start(number: int) -> None:
            path = f"/users/{USERS[number % len(USERS)]}/servers/s{number}"
            for _ in range(_TRIES):
                answer = client.post(path, json=hub.choice)
                # On a loaded machine a start may be asked to come again.
                if answer.status_code != 503:
                    break
                time.sleep(1)
            assert answer.status_code == 201, f"{answer.status_code}: {answer.text}\n{hub.tail(30)}"

        with ThreadPoolExecutor(_AT_ONCE) as threads:
            list(threads.map(start, range(have, count)))
