"""How the portal is: /health for whoever watches over it, /metrics for Prometheus."""

from __future__ import annotations

import logging
import time

from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from tornado.web import RequestHandler

from ..model.errors import Refused, Unavailable
from ..store.database import ask
from .base import Handler
from .metrics import DATABASE_UP, EXPERIMENTS, INSTANCES, REGISTRY, REQUESTS, STREAMS

log = logging.getLogger(__name__)


def count_request(handler: RequestHandler) -> None:
    """Counts a finished request."""
    labels = (type(handler).__name__, handler.request.method, handler.get_status())
    REQUESTS.labels(*labels).observe(handler.request.request_time())


class Health(Handler):
    """GET health: 200 when the database answers and has its tables, else 503 with the remedy.

    `round` tells how the last round went, "refused" when the Hub does not know the portal's token. It changes no
    status: a portal without its Hub still shows its pages' sentences, and comes back by itself.
    """

    access = "open"
    is_json = True
    round = "none"
    # Anybody may ask, so the database is asked once a second at most.
    _last: tuple[float, str] = (float("-inf"), "")

    async def get(self) -> None:
        at, problem = Health._last
        if time.monotonic() - at > 1:
            problem = await self._problem()
            Health._last = (time.monotonic(), problem)
        if problem:
            raise Unavailable(problem)
        self.send_json({"status": "ok", "round": Health.round})

    async def _problem(self) -> str:
        try:
            await ask(self.portal.store.check)
        except Unavailable as error:
            return error.sentence
        return ""


class Metrics(Handler):
    """GET metrics: for tokens with the Hub's scope read:metrics."""

    access = "token"
    is_json = True

    async def get(self) -> None:
        if "read:metrics" not in self.current_user["scopes"]:
            raise Refused("This needs a token of the Hub with the scope read:metrics.", rule="scope")
        await self._count()
        STREAMS.set(self.portal.watch.listeners)
        self.set_header("Content-Type", CONTENT_TYPE_LATEST)
        self.finish(generate_latest(REGISTRY))

    async def _count(self) -> None:
        """Counts rows; while the database is away there are none to tell, and everything else is told all the same."""
        INSTANCES.clear()
        EXPERIMENTS.clear()
        try:
            instances = await ask(self.portal.store.instances.counts)
            experiments = await ask(self.portal.store.experiments.counts)
        except Unavailable:
            return DATABASE_UP.set(0)
        for (backend, phase), number in instances.items():
            INSTANCES.labels(backend, phase).set(number)
        for source, number in experiments.items():
            EXPERIMENTS.labels(source).set(number)
        return DATABASE_UP.set(1)
