"""A Hub that answers as the real one does, in the test's own process; its servers start as the test says.

The rules are the real ones (`flows.launch.admit` over the real store): only the Hub and the backend are played.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tornado.web import RequestHandler, StaticFileHandler

from visahub.flows.launch import Menu, admit
from visahub.model.errors import Refused
from visahub.model.instance import Instance, Phase, Want
from visahub.model.launch import Step
from visahub.model.request import StartRequest
from visahub.store.database import Store, ask

SERVICE_TOKEN = "the-portal-itself"
STEPS = (
    Step(key="account", text="Account on the machine", percent=10),
    Step(key="files", text="Home and p700002 appear", percent=30),
    Step(key="process", text="JupyterLab starts", percent=60),
    Step(key="answers", text="JupyterLab answers", percent=90),
)


@dataclass
class FakeHub:
    """What the Hub knows, and how its next starts go: `seconds` for each step, `fails` with a sentence, `trouble`."""

    store: Store
    menu: Menu
    now: Any
    seconds: float = 0.0
    fails: str = ""
    trouble: int = 0
    forgets: bool = False
    rounds: int = 0
    calls: list[tuple[str, str, Any]] = field(default_factory=list)
    tokens: dict[str, dict[str, Any]] = field(default_factory=dict)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def token(self, name: str, scopes: set[str] | None = None, kind: str = "user") -> str:
        """Gives a token of a user, with the scopes of a session unless others are given."""
        usual = {"access:services!service=visahub", f"servers!user={name}", f"access:servers!user={name}"}
        wanted = usual if scopes is None else scopes
        token = hashlib.sha256(f"{kind} {name} {sorted(wanted)}".encode()).hexdigest()
        self.tokens[token] = {"name": name, "kind": kind, "scopes": sorted(wanted), "groups": [], "admin": False}
        return token

    def instance_token(self, instance: Instance) -> str:
        return self.token(
            instance.owner,
            {f"access:servers!server={instance.owner}/{instance.server_name}", f"users:activity!user={instance.owner}"},
        )

    def routes(self, static: Path) -> list[Any]:
        me = {"hub": self}
        return [
            ("/hub/static/(.*)", StaticFileHandler, {"path": str(static)}),
            ("/hub/api/user", _User, me),
            ("/hub/api/oauth2/authorize", _Authorize, me),
            ("/hub/api/oauth2/token", _Token, me),
            ("/hub/api/users/([^/]+)/servers/([^/]+)", _Server, me),
            ("/hub/api/visahub/round", _Round, me),
            ("/user/([^/]+)/([^/]+)/(.*)", _Lab, me),
        ]

    async def begin(self, username: str, server: str, options: dict[str, Any]) -> bool:
        """Admits and starts; tells whether it is ready already."""
        account = self.store.accounts.named(username)
        assert account is not None
        request = StartRequest.read(options)
        admission = await ask(admit, self.store, self.menu, account, server, request, self.now(), 600.0)
        run = asyncio.create_task(self._run(admission.instance))
        self.tasks.add(run)
        run.add_done_callback(self.tasks.discard)
        await asyncio.wait({run}, timeout=0.2)
        return run.done()

    async def _run(self, instance: Instance) -> None:
        steps = STEPS[:2] if self.fails else STEPS
        for step in steps:
            await ask(self.store.instances.step, instance.id, instance.attempt, step, self.now())
            await asyncio.sleep(self.seconds)
        if self.fails:
            await ask(self.store.instances.note, instance.id, "first line\nTraceback: <b>no GPU</b>\n", self.now())
            await ask(self.move, instance.id, Phase.ERROR, self.fails)
        else:
            await ask(self.move, instance.id, Phase.READY)

    def move(self, instance_id: str, phase: Phase, sentence: str = "") -> Instance:
        return self.store.instances.move(instance_id, phase, self.now(), sentence=sentence)

    async def end(self, username: str, server: str, *, remove: bool) -> None:
        account = self.store.accounts.named(username)
        assert account is not None
        instance = await ask(self.store.instances.named, account.id, server)
        if instance is None:
            raise Refused("no such server", rule="absent", status=404)
        for task in self.tasks:
            task.cancel()
        await ask(self.store.instances.wish, instance.id, Want.GONE if remove else Want.OFF, self.now())
        if remove:
            await ask(self.move, instance.id, Phase.DELETING)
            await ask(self.move, instance.id, Phase.GONE)
        else:
            if instance.phase is not Phase.STOPPED:
                await ask(self.move, instance.id, Phase.STOPPED)


class _Base(RequestHandler):
    def initialize(self, hub: FakeHub) -> None:
        self.hub = hub

    def check_xsrf_cookie(self) -> None:
        """The Hub asks no XSRF of tokens."""

    def user(self) -> dict[str, Any] | None:
        if self.hub.forgets:
            return None
        return self.hub.tokens.get(self.request.headers.get("Authorization", "").removeprefix("token "))

    def say(self, status: int, message: str) -> None:
        self.set_status(status)
        self.finish(json.dumps({"status": status, "message": message}))


class _User(_Base):
    def get(self) -> None:
        if self.hub.trouble:
            return self.say(self.hub.trouble, "Internal Server Error")
        user = self.user()
        if user is None:
            return self.say(403, "Missing or invalid credentials.")
        self.finish(json.dumps(user))


class _Authorize(_Base):
    """Logs in whoever the cookie of the fake names."""

    def get(self) -> None:
        name = self.get_cookie("fake-login", "alice")
        back = {"code": self.hub.token(name), "state": self.get_argument("state")}
        self.redirect(f"{self.get_argument('redirect_uri')}?{urlencode(back)}")


class _Token(_Base):
    def post(self) -> None:
        self.finish(json.dumps({"access_token": self.get_body_argument("code")}))


class _Server(_Base):
    async def prepare(self) -> None:
        self.body = json.loads(self.request.body or b"{}")
        self.hub.calls.append((self.request.method or "", self.request.path, self.body))
        user = self.user()
        if self.hub.trouble:
            self.say(self.hub.trouble, "Internal Server Error")
        elif user is None or user["name"] != self.request.path.split("/")[4]:
            self.say(403, "Action is not authorized with current scopes")

    async def get(self, username: str, server: str) -> None:
        self.finish(json.dumps({"name": server, "ready": True}))

    async def post(self, username: str, server: str) -> None:
        try:
            is_ready = await self.hub.begin(username, server, self.body["user_options"])
        except Refused as refused:
            return self.say(refused.status, refused.sentence)
        self.set_status(201 if is_ready else 202)

    async def delete(self, username: str, server: str) -> None:
        try:
            await self.hub.end(username, server, remove=self.body.get("remove", False))
        except Refused as refused:
            return self.say(refused.status, refused.sentence)
        self.set_status(204)


class _Round(_Base):
    def post(self) -> None:
        if self.request.headers.get("Authorization") != f"token {SERVICE_TOKEN}":
            return self.say(403, "Only the portal may ask for a round.")
        if self.hub.trouble:
            return self.say(self.hub.trouble, "Internal Server Error")
        self.hub.rounds += 1
        self.finish("{}")


class _Lab(_Base):
    def get(self, username: str, server: str, path: str) -> None:
        self.finish(f"<!doctype html><title>JupyterLab</title><h1>JupyterLab of {server}</h1>")
