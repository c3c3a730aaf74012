"""What a Hub of a thousand instances needs to know of `place.py`: our backend, and two spawners for a stock Hub."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from functools import cached_property
from typing import Any, ClassVar

import aiohttp
import httpx
from jupyterhub.spawner import Spawner
from traitlets import Integer

from visahub.backends.base import Backend
from visahub.model.instance import State
from visahub.model.launch import Condition, Launch, Look, Seen, Step
from visahub.model.offer import Hardware, Offer


class CrowdBackend(Backend):
    """Instances of the place, listed by one question."""

    id = "crowd"
    port = Integer(help="Where the place answers.").tag(config=True)

    @cached_property
    def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(trust_env=False, base_url=f"http://127.0.0.1:{self.port}/place/")

    async def _ask(self, method: str, path: str) -> Any:
        answer = await self._client.request(method, path)
        return answer.json() if answer.content else None

    async def offers(self, hardware: tuple[Hardware, ...]) -> list[Offer]:
        return [Offer(hardware=one, is_free=True, sentence="free now") for one in hardware if one.backend == self.id]

    async def start(self, launch: Launch) -> AsyncIterator[Step]:
        yield Step(key="place", text="Placing", percent=50, state={"place": launch.attempt})
        await self._ask("PUT", f"one/{launch.attempt}")
        yield Step(key="up", text="Up", percent=95, address=f"http://127.0.0.1:{self.port}")

    async def look(self) -> Look:
        running = Seen.RUNNING
        return {
            attempt: Condition(seen=running, state={"place": attempt}, address=f"http://127.0.0.1:{self.port}")
            for attempt in await self._ask("GET", "all/")
            if not attempt.startswith("stock-")
        }

    async def stop(self, attempt: str, state: State) -> None:
        await self._ask("DELETE", f"one/{attempt}")

    async def delete(self, attempt: str, state: State) -> None:
        await self._ask("DELETE", f"one/{attempt}")


class FreeSpawner(Spawner):
    """A stock spawner whose poll costs what SimpleLocalProcessSpawner's does: one signal 0 to a process that lives."""

    place_port = Integer(help="Where the place answers.").tag(config=True)
    _session: ClassVar[aiohttp.ClientSession | None] = None

    async def _ask(self, method: str, path: str) -> Any:
        if FreeSpawner._session is None:
            # The quickest client of what the Hub brings with it.
            FreeSpawner._session = aiohttp.ClientSession()
        url = f"http://127.0.0.1:{self.place_port}/place/{path}"
        async with FreeSpawner._session.request(method, url) as answer:
            return await answer.json(content_type=None)

    @property
    def place_name(self) -> str:
        return f"stock-{self.user.name}-{self.name}"

    async def start(self) -> tuple[str, int]:
        await self._ask("PUT", f"one/{self.place_name}")
        return "127.0.0.1", self.place_port

    async def stop(self, now: bool = False) -> None:
        await self._ask("DELETE", f"one/{self.place_name}")

    async def poll(self) -> int | None:
        os.kill(os.getpid(), 0)
        return None


class AskingSpawner(FreeSpawner):
    """A stock spawner that asks the place about its own server, as spawners of clouds and clusters do."""

    async def poll(self) -> int | None:
        return None if await self._ask("GET", f"one/{self.place_name}") else 0
