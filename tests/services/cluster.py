"""A place outside of the Hub, for tests with hundreds of instances: one process that is all of the machines.

`Cluster` starts the process (`cluster_place.py`) and asks it what runs; `ClusterBackend` is for `c.Visahub.backends`.
What the place made goes on when the Hub is killed. It loses answers, lists late and boots slowly, as its seed says.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
from tornado.httpclient import AsyncHTTPClient, HTTPClientError
from traitlets import Unicode

from visahub.backends.base import Backend
from visahub.model.errors import Failed, Unavailable
from visahub.model.instance import State
from visahub.model.launch import Condition, Launch, Look, Seen, Step
from visahub.model.offer import Hardware, Offer

ROOT = Path(__file__).parents[2]


class Cluster:
    """The place as a test sees it: its process, its faults, and everything that it knows."""

    def __init__(self, folder: Path, port: int, **faults: float) -> None:
        self.url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "tests.services.cluster_place", str(port), json.dumps(faults)]
        with (folder / "cluster.log").open("ab") as log:
            self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def is_up(self) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{self.url}/place", timeout=2).status_code == 200
        return False

    def told(self) -> dict[str, Any]:
        """Gives what is really there: live resources, attempts that were ever doubled, answers that were lost."""
        return dict(httpx.get(f"{self.url}/place", timeout=30).json())

    def heal(self) -> None:
        """Ends all faults."""
        httpx.post(f"{self.url}/place/heal", timeout=30).raise_for_status()

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(10)


class ClusterBackend(Backend):
    """Instances in the place; knows of it what a cloud tells: an answer, a list, or nothing."""

    id = Unicode("cluster", help="The backend's id.").tag(config=True)
    url = Unicode(help="Where the place answers.").tag(config=True)

    @cached_property
    def _client(self) -> AsyncHTTPClient:
        return AsyncHTTPClient(force_instance=True, max_clients=500)

    async def offers(self, hardware: tuple[Hardware, ...]) -> list[Offer]:
        return [Offer(hardware=size, is_free=True, sentence="free now") for size in hardware]

    async def start(self, launch: Launch) -> AsyncIterator[Step]:
        yield Step(key="account", text="Preparing your account", percent=5)
        found = await self._ask("GET", f"/listed/{self.deployment}/{launch.attempt}")
        if not found:
            body = {"deployment": self.deployment, "attempt": launch.attempt, "instance": launch.instance_id}
            # As the Hub names the instance's address: the place answers there, and nowhere else.
            body["prefix"] = launch.environ["JUPYTERHUB_SERVICE_PREFIX"]
            found = await self._ask("POST", "/resources", body)
        yield Step(key="process", text="Booting the machine", percent=30, state={"id": found["id"]})
        seen = (await self._ask("GET", f"/resources/{found['id']}"))["seen"]
        if seen != "running":
            raise Failed("The machine ended while it booted. Start it again.")
        yield Step(key="answers", text="JupyterLab answers", percent=95, address=self.url)

    async def look(self) -> Look:
        listed = await self._ask("GET", f"/listed/{self.deployment}")
        return {
            attempt: Condition(seen=Seen(found["seen"]), state={"id": found["id"]}, address=self.url)
            for attempt, found in listed.items()
        }

    async def stop(self, attempt: str, state: State) -> None:
        await self._ask("POST", "/end", {"deployment": self.deployment, "attempt": attempt, "id": state.get("id", "")})

    async def delete(self, attempt: str, state: State) -> None:
        await self.stop(attempt, state)

    async def _ask(self, method: str, path: str, body: dict[str, str] | None = None) -> dict[str, Any]:
        try:
            answer = await self._client.fetch(
                self.url + "/place" + path,
                method=method,
                body=None if body is None else json.dumps(body),
                # The machine may be loaded; an answer that the place loses on purpose is noticed at once all the same.
                connect_timeout=120,
                request_timeout=120,
            )
        except (OSError, HTTPClientError) as error:
            raise Unavailable("The place does not answer. Try again in a few seconds.") from error
        return dict(json.loads(answer.body))
