"""From POST /hub/api/users/U/servers/S until the server is ready: VisaSpawner against SimpleLocalProcessSpawner.

Both Hubs run here and now with the same JupyterLab and the same server extensions, and the servers with the rights of
their Hub; the runs take turns. One start is measured, and ten of ten people at the same moment until the last is ready.
"""

from __future__ import annotations

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx

from tests.services.hub import RunningHub

from .figure import Figure
from .hubs import OurHub, StockHub, running
from .runner import say

_RUNS = 5
_USERS = [f"bench{number}" for number in range(10)]
_OURS = """
c.Visahub.start_seconds = 120
c.TestedLocalBackend.limit_memory = True
"""
_STOCK = """
c.JupyterHub.spawner_class = "jupyterhub.spawner.SimpleLocalProcessSpawner"
c.SimpleLocalProcessSpawner.home_dir_template = "{state}/homes/{{username}}"
c.Spawner.cmd = [{command!r}]
c.Spawner.args = {args!r}
c.Spawner.http_timeout = 120
c.Spawner.start_timeout = 120
"""
_REFERENCE = "SimpleLocalProcessSpawner on a stock Hub beside it"


def measure() -> list[Figure]:
    """Starts and stops in turn on two Hubs."""
    with ExitStack() as stack:
        ours = stack.enter_context(running(_our_hub))
        stock = stack.enter_context(running(_stock_hub))
        hubs = (ours, stock)
        for hub in hubs:
            hub.enter()
            # What happens only once (homes, caches of the file system) belongs to nobody's figure.
            _started(hub, _USERS[:1], "first")
        one: dict[RunningHub, list[float]] = {hub: [] for hub in hubs}
        ten: dict[RunningHub, list[float]] = {hub: [] for hub in hubs}
        for run in range(_RUNS):
            for hub in hubs:
                one[hub].append(_started(hub, _USERS[:1], f"one{run}"))
            say(f"start: {one[ours][-1]:.2f} s against {one[stock][-1]:.2f} s")
        for run in range(_RUNS):
            for hub in hubs:
                ten[hub].append(_started(hub, _USERS, f"ten{run}"))
            say(f"start: ten at once {ten[ours][-1]:.2f} s against {ten[stock][-1]:.2f} s")
    return [
        Figure.of("POST to ready", "s", one[ours], one[stock], reference_is=_REFERENCE, goal=0.4),
        Figure.of("POST to ready, ten at once", "s", ten[ours], ten[stock], reference_is=_REFERENCE, goal=0.5),
    ]


def _our_hub(state: Path) -> OurHub:
    return OurHub(state, users=_USERS, more=_OURS)


def _stock_hub(state: Path) -> StockHub:
    command = str(Path(sys.executable).parent / "jupyterhub-singleuser")
    args = ["--allow-root"] if os.geteuid() == 0 else []
    return StockHub(state, users=_USERS, more=_STOCK.format(state=state, command=command, args=args))


def _started(hub: OurHub | StockHub, users: list[str], server: str) -> float:
    """Gives the seconds until the servers of all users are ready; then they are removed."""
    headers = {"Authorization": f"token {hub.admin_token}"}
    with httpx.Client(base_url=hub.api_url, headers=headers, timeout=180) as client, ThreadPoolExecutor(10) as threads:
        client.get("/")

        def start(user: str) -> None:
            answer = client.post(f"/users/{user}/servers/{server}", json=hub.choice)
            assert answer.status_code == 201, f"{answer.status_code}: {answer.text}\n{hub.tail(30)}"

        def stop(user: str) -> None:
            answer = client.request("DELETE", f"/users/{user}/servers/{server}", json={"remove": True})
            assert answer.status_code == 204, f"{answer.status_code}: {answer.text}\n{hub.tail(30)}"

        began = time.monotonic()
        list(threads.map(start, users))
        seconds = time.monotonic() - began
        list(threads.map(stop, users))
    return seconds
