"""What 1, 100 and 1,000 running instances cost a Hub: its rounds, its start and its memory, beside a stock Hub's.

The stock Hub's poll is the cheapest there is, one signal 0 for each server, as SimpleLocalProcessSpawner does it. Ours
asks the place once in a round, over HTTP, joins the answer with the rows, saves the offers and checks the routes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from itertools import repeat
from pathlib import Path
from statistics import median

import httpx

from tests.services.hub import ROOT, RunningHub, wait_until

from .figure import Figure
from .fleet import USERS, fill, our_hub, place, stock_hub
from .hubs import memory_disk, processor_seconds, resident_mb, running
from .runner import say

_RUNS = 5
_COUNTS = (1, 100, 1000)
# A round of ours and one poll of each server of the stock Hub.
_PERIOD_SECONDS = 3.0
_POLLS = f"c.Spawner.poll_interval = {_PERIOD_SECONDS}\n"
_REFERENCE = "a stock Hub whose poll is kill(pid, 0)"


def measure() -> list[Figure]:
    """Fills both Hubs to each number, and measures what goes on."""
    with ExitStack() as stack:
        port = stack.enter_context(place())
        where = memory_disk()
        ours = stack.enter_context(running(lambda state: our_hub(state, port), where=where))
        stock = stack.enter_context(running(lambda state: stock_hub(state, port, "FreeSpawner", _POLLS), where=where))
        hubs = (ours, stock)
        for hub in hubs:
            hub.enter()
        memory: dict[int, tuple[float, float, float]] = {}
        rounds: dict[int, tuple[list[float], list[float]]] = {}
        for count in _COUNTS:
            with ThreadPoolExecutor(len(hubs)) as threads:
                list(threads.map(fill, hubs, repeat(count)))
            with _portal(ours) as portal:
                memory[count] = (resident_mb(ours.pid), resident_mb(stock.pid), resident_mb(portal))
            rounds[count] = _rounds(ours, stock)
            say(f"thousand: {count} running: {median(rounds[count][0]):.3f} s against {median(rounds[count][1]):.3f} s")
        return [*_figures(rounds), *_memory(memory), *_starts(ours, stock)]


def _rounds(ours: RunningHub, stock: RunningHub) -> tuple[list[float], list[float]]:
    """Gives the processor seconds of periods in which both Hubs do their work once; both at the same time."""
    mine, theirs = [], []
    # What the starts have left to do is done first.
    time.sleep(2)
    for _ in range(_RUNS):
        before = processor_seconds(ours.pid), processor_seconds(stock.pid)
        until = time.monotonic() + _PERIOD_SECONDS
        ours.round()
        time.sleep(max(0.0, until - time.monotonic()))
        mine.append(processor_seconds(ours.pid) - before[0])
        theirs.append(processor_seconds(stock.pid) - before[1])
    return mine, theirs


def _figures(rounds: dict[int, tuple[list[float], list[float]]]) -> list[Figure]:
    """Says what the instances add to what the two Hubs use with one alone."""
    idle = [[second * 1000 for second in seconds] for seconds in rounds[1]]
    found = [Figure.of("Hub CPU per round, 1 running", "ms", *idle, reference_is=_REFERENCE, goal=None)]
    for count in _COUNTS[1:]:
        added = [
            [(second * 1000 - median(base)) / (count - 1) for second in seconds]
            for seconds, base in zip(rounds[count], idle, strict=True)
        ]
        name = f"Hub CPU added per instance and round, {count} running"
        found.append(Figure.of(name, "ms", *added, reference_is=_REFERENCE, goal=0.5))
    return found


def _memory(memory: dict[int, tuple[float, float, float]]) -> list[Figure]:
    few, many = _COUNTS[0], _COUNTS[-1]
    hub, stock, portal = ((memory[many][i] - memory[few][i]) / (many - few) * 1024 for i in range(3))
    return [
        Figure.of("Hub memory per instance", "kB", [hub], [stock], reference_is="a stock Hub", goal=None),
        Figure.told("portal memory per instance", "kB", [portal], what=f"from {few} to {many} instances, pages shown"),
    ]


def _starts(ours: RunningHub, stock: RunningHub) -> list[Figure]:
    """Kills and starts both in turn while all instances go on."""
    mine: list[float] = []
    theirs: list[float] = []
    for _ in range(_RUNS):
        for hub, seconds in ((ours, mine), (stock, theirs)):
            hub.kill()
            began = time.monotonic()
            hub.start()
            seconds.append(time.monotonic() - began)
            wait_until(hub.is_settled, "the Hub has started", seconds=120)
        say(f"thousand: start of a Hub {mine[-1]:.2f} s against {theirs[-1]:.2f} s")
    name = f"Hub start to its first answer, {_COUNTS[-1]} running"
    return [Figure.of(name, "s", mine, theirs, reference_is="python -m jupyterhub, the same number", goal=1.0)]


@contextmanager
def _portal(hub: RunningHub) -> Iterator[int]:
    """Runs the portal as a unit of its own, shows some people their instances, and gives its process."""
    environ = os.environ | {
        "VISAHUB_PORTAL_TOKEN": hub.portal_token,
        "JUPYTERHUB_API_URL": hub.api_url,
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", "visahub.cli", "portal", "--config", str(hub.config_file)]
    with Path(hub.state, "portal.log").open("ab") as log:
        process = subprocess.Popen(
            command, cwd=hub.state, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        wait_until(hub.has_portal, "the portal answers", process)
        for name in USERS[:5]:
            with closing(hub.login(name)) as session:
                page = session.get("/services/visahub/", follow_redirects=True)
                assert page.status_code == httpx.codes.OK, page.text[-500:]
        yield process.pid
    finally:
        process.terminate()
        process.wait(20)
