"""One Hub for each test module, with experiments of every kind, and shorthands for asking it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.services.hub import RunningHub, running
from visahub.model.experiment import Experiment, Member
from visahub.model.instance import Instance, new_instance_id
from visahub.store.database import Store

OWN = Experiment(
    id="own",
    proposal="p1",
    title="Alice's own",
    instrument="P03",
    start=date(2026, 1, 1),
    end=date(2026, 1, 3),
    public_at=date(2030, 1, 1),
    team=(Member("alice"),),
)
OTHERS = replace(OWN, id="others", proposal="p2", team=(Member("bob"),))


def choices(**changed: Any) -> dict[str, Any]:
    """Gives options that are admitted, with some changed."""
    return {"experiments": ["own"], "environment": "tiny", "hardware": "small"} | changed


class Asking:
    """The Hub, the database behind it, and one user's token."""

    def __init__(self, hub: RunningHub, url: str = "") -> None:
        self.hub = hub
        self.store = Store(url or f"sqlite:///{hub.state / 'visahub.sqlite'}")
        self.tokens: dict[str, str] = {}

    def experiments(self, *experiments: Experiment) -> None:
        """Lets the catalogue hold exactly these."""
        self.store.experiments.replace_source("tests", experiments, datetime.now(UTC))

    def token(self, username: str) -> str:
        if username not in self.tokens:
            self.hub.login(username).close()
            self.tokens[username] = self.hub.token(username)
        return self.tokens[username]

    def start(self, server: str, options: Any, username: str = "alice") -> Any:
        return self.hub.start_server(username, server, options, token=self.token(username))

    def started(self, username: str = "alice", **changed: Any) -> str:
        """Starts a new instance, waits until it is ready and gives its server's name."""
        server = new_instance_id()
        response = self.start(server, choices(**changed), username)
        assert response.status_code in {201, 202}, response.text
        self.hub.wait_ready(username, server)
        return server

    def ask(self, method: str, server: str, body: Any = None, username: str = "alice") -> Any:
        path = f"/users/{username}/servers/{server}"
        return self.hub.api(method, path, token=self.token(username), body=body)

    def row(self, server: str, username: str = "alice") -> Instance | None:
        account = self.store.accounts.named(username)
        assert account is not None
        return self.store.instances.named(account.id, server)

    def visit(self, server: str, username: str = "alice") -> dict[str, Any]:
        """Asks the instance itself, through the proxy; the tiny server tells its environment."""
        response = httpx.get(f"{self.hub.url}/user/{username}/{server}/api", timeout=10)
        assert response.status_code == 200, response.text
        return dict(response.json())

    def home(self, username: str = "alice") -> Path:
        home = self.hub.state / "homes" / username
        home.mkdir(parents=True, exist_ok=True)
        return home

    def hub_query(self, query: str, *values: Any) -> list[Any]:
        """Reads the Hub's own database."""
        with closing(sqlite3.connect(self.hub.state / "jupyterhub.sqlite", timeout=10)) as database:
            return database.execute(query, values).fetchall()


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asking]:
    with running(tmp_path_factory.mktemp("hub")) as hub:
        made = Asking(hub)
        made.experiments(OWN, OTHERS)
        yield made
        made.store.close()


@pytest.fixture
def catalogue(asking: Asking) -> Iterator[Callable[..., None]]:
    """Changes the catalogue for one test."""
    yield asking.experiments
    asking.experiments(OWN, OTHERS)


@pytest.fixture(autouse=True)
def nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Deletes what a test has started, so that the quota stays free."""
    asking = request.getfixturevalue("asking") if "asking" in request.fixturenames else None
    yield
    if asking is None:
        return
    for name in ("fail", "slow"):
        for username in ("alice", "bob", "carla"):
            (asking.home(username) / name).unlink(missing_ok=True)
    for row in asking.store.instances.live():
        asking.hub.api("DELETE", f"/users/{row.owner}/servers/{row.server_name}", body={"remove": True})
