"""A portal on a free port over the real store, with a Hub that is played in the same process."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import jupyterhub
import pytest_asyncio
from jupyterhub._data import get_data_files
from tornado.netutil import bind_sockets
from tornado.web import Application
from traitlets.config import Config

from visahub.model.account import Account
from visahub.model.request import StartRequest
from visahub.portal import app as portal_app
from visahub.portal.auth import PortalAuth
from visahub.portal.base import Portal, utc_now
from visahub.portal.events import Watch
from visahub.portal.hubapi import HubApi
from visahub.portal.lab import Builds
from visahub.portal.limits import Buckets
from visahub.store.database import Store

from . import data
from .fake_hub import SERVICE_TOKEN, FakeHub

ROOT = Path(__file__).parents[2]
PREFIX = "/services/visahub/"
assert jupyterhub


@dataclass
class Site:
    """A running portal: `client(name)` is somebody with a token, `browser(name)` somebody with a session."""

    url: str
    portal: Portal
    hub: FakeHub
    store: Store
    people: dict[str, Account]
    app: Application

    @property
    def home(self) -> str:
        return self.url + PREFIX

    def client(self, name: str = "alice", scopes: set[str] | None = None, kind: str = "user") -> httpx.AsyncClient:
        token = self.hub.token(name, scopes, kind)
        return httpx.AsyncClient(base_url=self.home, headers={"Authorization": f"token {token}"}, timeout=20)

    def nobody(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.home, timeout=20)

    async def browser(self, name: str = "alice") -> httpx.AsyncClient:
        """Logs in as a browser does, over OAuth."""
        client = httpx.AsyncClient(base_url=self.home, timeout=20, follow_redirects=True)
        client.cookies.set("fake-login", name)
        answer = await client.get("experiments?page_size=5")
        assert answer.status_code == 200, answer.text
        client.follow_redirects = False
        return client

    def xsrf(self, client: httpx.AsyncClient) -> str:
        return next(cookie.value or "" for cookie in client.cookies.jar if cookie.name == "_xsrf")

    def request(self, **changes: Any) -> StartRequest:
        usual = {
            "experiments": ["xfel/700002"],
            "environment": "analysis",
            "hardware": "small",
            "name": "quiet-beamline",
        }
        return StartRequest.read(usual | changes)


# The JupyterLab that is installed beside these tests.
LAB = Path(sys.prefix) / "share" / "jupyter" / "lab" / "static"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def site(tmp_path_factory: Any) -> AsyncIterator[Site]:
    store = Store(f"sqlite:///{tmp_path_factory.mktemp('portal')}/visahub.sqlite")
    store.upgrade()
    people = {
        who.username: store.accounts.enter(who, uid_min=20000) for who in (data.ALICE, data.BOB, data.CAROL, data.DORA)
    }
    store.experiments.replace_source("sample", data.experiments(), utc_now())
    for backend, offers in data.OFFERS.items():
        store.offers.save(backend, offers, utc_now())
    [socket] = bind_sockets(0, "127.0.0.1")
    url = f"http://127.0.0.1:{socket.getsockname()[1]}"
    auth = PortalAuth(
        config=Config(),
        parent=None,
        api_url=f"{url}/hub/api",
        api_token=SERVICE_TOKEN,
        oauth_client_id="service-visahub",
        base_url=PREFIX,
        hub_prefix="/hub/",
        access_scopes={"access:services!service=visahub"},
    )
    hub = FakeHub(store, data.MENU, utc_now)
    share = ROOT / "share"
    portal = Portal(
        store=store,
        menu=data.MENU,
        hub=HubApi(f"{url}/hub/api", SERVICE_TOKEN),
        auth=auth,
        jinja=portal_app.make_jinja(
            share / "templates/portal", share / "static", PREFIX, "/", "Photon Science Data Analysis"
        ),
        watch=Watch(store),
        prefix=PREFIX,
        searches=Buckets(burst=10_000, per_second=1000),
    )
    app = portal_app.make_app(portal, share / "static", share / "node_modules/htmx.org/dist", Builds([LAB]))
    static = Path(get_data_files()) / "static"
    app.add_handlers(".*", hub.routes(static))
    server = portal_app.make_server(app)
    server.add_sockets([socket])
    yield Site(url, portal, hub, store, people, app)
    server.stop()
    await portal.watch.close()
    for task in hub.tasks:
        task.cancel()
    await asyncio.wait_for(server.close_all_connections(), timeout=10)
    portal.hub.close()
    store.close()
