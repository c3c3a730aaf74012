"""A whole story with a recognisable secret in each channel; none of them is in a log or in our database."""

from __future__ import annotations

import contextlib
import re
import secrets
import socket
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import httpx
import psycopg
import pytest

from tests.services.hub import USER_PASSWORD, RunningHub, wait_until
from tests.services.postgres import Cluster, why_not
from visahub.model.experiment import Experiment
from visahub.store.database import Store
from visahub.store.tables import metadata

pytestmark = [pytest.mark.services, pytest.mark.slow, pytest.mark.timeout(300)]

PORTAL = "/services/visahub/"
OPEN = Experiment(
    id="xfel/1",
    proposal="p1",
    title="Open data of a test",
    instrument="P03",
    start=date(2020, 1, 1),
    end=date(2020, 1, 3),
    public_at=date(2021, 1, 1),
)
_MORE = """
from jupyterhub.handlers.base import BaseHandler

class Broken(BaseHandler):
    async def get(self):
        raise RuntimeError(f"a defect with {{self.request.uri}}")

c.JupyterHub.extra_handlers = [("/broken", Broken)]
c.JupyterHub.load_roles.append({{"name": "user", "scopes": ["self", "shares!user", "access:services!service=visahub"]}})
c.Visahub.database_url = {url!r}
c.TestedLocalBackend.commands["leaky"] = [sys.executable, "-c", "import os, sys; sys.exit(str(dict(os.environ)))"]
c.Visahub.environments.append({{"id": "leaky", "name": "Leaky", "has_desktop": False, "images": {{"local": "leaky"}}}})
"""


class Story:
    """The Hub with its portal on PostgreSQL, and every secret that was met, by the channel that it went through."""

    def __init__(self, hub: RunningHub, database: str) -> None:
        self.hub = hub
        self.database = database
        self.secrets: dict[str, str] = {}

    def plant(self, channel: str) -> str:
        """Makes a secret of our own."""
        made = self.secrets[channel] = f"Sesame{secrets.token_hex(12)}"
        return made

    def met(self, response: httpx.Response) -> None:
        """Remembers what a response hands out: cookies, and codes and states in redirects."""
        for name, value in response.cookies.items():
            if len(value) > 20:
                self.secrets[f"cookie {name} {value[-8:]}"] = value.strip('"')
        query = parse_qs(urlsplit(response.headers.get("location", "")).query)
        for name in ("code", "state"):
            for value in query.get(name, []):
                self.secrets[f"oauth {name} {value[:8]}"] = value

    def session(self) -> httpx.Client:
        return httpx.Client(
            base_url=self.hub.url, follow_redirects=True, timeout=60, event_hooks={"response": [self.met]}
        )

    def logs(self) -> dict[Path, str]:
        """Gives every log of Hub, portal, proxy, keepers and instances."""
        places = [self.hub.state, self.hub.run_root]
        found = [one for place in places for one in place.rglob("*") if one.is_file() and one.name.endswith("log")]
        return {one: one.read_text(errors="replace") for one in found}


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    if why_not():
        pytest.skip(why_not())
    with Cluster() as cluster:
        password = f"Sesame{secrets.token_hex(12)}"
        database = cluster.database()
        url = cluster.url(database).replace("visahub@", f"visahub:{password}@")
        store = Store(url)
        store.upgrade()
        store.experiments.replace_source("tests", [OPEN], datetime.now(UTC))
        store.close()
        crypt_key = secrets.token_hex(32)
        state = tmp_path_factory.mktemp("planted")
        hub = RunningHub(state, more=_MORE.format(url=url), environ={"JUPYTERHUB_CRYPT_KEY": crypt_key})
        hub.with_portal = True
        try:
            hub.start_proxy()
            hub.start()
            wait_until(hub.has_portal, "the portal answers")
            told = Story(hub, cluster.address(database))
            told.secrets |= {
                "password of the database": password,
                "crypt key": crypt_key,
                "cookie secret": (state / "cookie_secret").read_text().strip(),
                "token of a service": hub.admin_token,
                "token of the proxy": hub._proxy_token,
                "password": USER_PASSWORD,
            }
            tell(told)
            yield told
        finally:
            hub.close()


def tell(story: Story) -> None:
    """Does everything that passes a secret on."""
    hub = story.hub
    with story.session() as nobody:
        xsrf = nobody.get("/hub/login").cookies.get("_xsrf", "")
        wrong = {"username": "alice", "password": story.plant("wrong password")}
        nobody.post("/hub/login", params={"_xsrf": xsrf}, data=wrong)
        nobody.get("/hub/login", params={"username": "alice", "password": story.plant("password in an address")})
        nobody.get("/hub/accept-share", params={"code": story.plant("share code, nested in next")})
        nobody.get("/hub/login", params={"next": f"/hub/accept-share?code={story.plant('code in next')}"})
    with story.session() as alice:
        xsrf = alice.get("/hub/login").cookies.get("_xsrf", "")
        entered = alice.post(
            "/hub/login", params={"_xsrf": xsrf}, data={"username": "alice", "password": USER_PASSWORD}
        )
        assert "You have no instance yet" in entered.text
        token = story.secrets["token of a person"] = hub.token("alice")
        run(story, alice, token)
        break_things(story, alice, token)
        share(story, alice, token)
    for pid in hub.instance_pids():
        environ = Path(f"/proc/{pid}/environ").read_text()
        for name, value in re.findall(r"(\w*TOKEN)=([^\0]+)", environ):
            story.secrets[f"{name} of {pid}"] = value


def run(story: Story, alice: httpx.Client, token: str) -> None:
    """Starts with wrong and right choices, and enters JupyterLab by cookie, by header, by address and by websocket."""
    hub = story.hub
    right = {"experiments": ["xfel/1"], "environment": "lab", "hardware": "small"}
    for number, wrong in enumerate(({"token": story.plant("unknown option")}, {"environment": "x" * 1_000_000})):
        assert hub.start_server("alice", f"iwrong{number}", right | wrong, token=token).status_code == 422
    assert hub.start_server("alice", "ileaky", right | {"environment": "leaky"}, token=token).status_code in {202, 503}
    assert hub.start_server("alice", "ilab", right, token=token).status_code in {201, 202}
    hub.wait_ready("alice", "ilab")
    lab = "/user/alice/ilab"
    assert alice.get(f"{lab}/lab").status_code == 200
    header = {"Authorization": f"token {token}"}
    assert httpx.get(f"{hub.url}{lab}/api/status", headers=header).status_code == 200
    for path in (f"{lab}/api/status", f"{lab}/api/nothing", "/hub/api/user", f"{PORTAL}api/instances"):
        httpx.get(f"{hub.url}{path}", params={"token": token})
        httpx.get(f"{hub.url}{path}", params={"token": story.plant(f"?token= of {path}")})
        httpx.get(f"{hub.url}{path}", headers={"Authorization": f"token {story.plant(f'header of {path}')}"})
        httpx.get(f"{hub.url}{path}", headers={"Cookie": f"jupyterhub-hub-login={story.plant(f'cookie of {path}')}"})
    upgrade(story, f"{lab}/api/events/subscribe?token={token}")
    upgrade(story, f"{lab}/visahub/desktop/socket?token={story.plant('?token= of a websocket')}")
    upgrade(story, f"{PORTAL}events?_xsrf={story.plant('_xsrf of a stream')}")


def upgrade(story: Story, path: str) -> None:
    """Opens a websocket and closes it after the answer."""
    with contextlib.closing(socket.create_connection(("127.0.0.1", story.hub.ports[0]), timeout=20)) as opened:
        lines = ["Host: 127.0.0.1", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"]
        lines += ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]
        opened.sendall("\r\n".join([f"GET {path} HTTP/1.1", *lines, "", ""]).encode())
        assert opened.recv(100).startswith(b"HTTP/1.1 ")


def break_things(story: Story, alice: httpx.Client, token: str) -> None:
    """Forces a 500 of Hub, portal and instance, with secrets in every place that an error might print."""
    hub = story.hub
    referer = f"{hub.url}/x?token={story.plant('token in a referer')}&password={story.plant('password in a referer')}"
    for path in ("/hub/broken", "/hub/spawn/alice/x", f"{PORTAL}new"):
        secret = story.plant(f"password of {path}")
        address = f"{path}?password={secret}&next={quote('/a?token=' + secret)}&auth_code={secret}"
        if path.startswith(PORTAL):
            with psycopg.connect(story.database) as ours:
                ours.execute("""UPDATE preferences SET "values" = '{"last": {"experiments": 5}}'""")
        told = alice.get(address, headers={"Referer": referer, "Authorization": f"token {token}"})
        assert told.status_code == (200 if "spawn" in path else 500), path
    broken = f"/user/alice/ilab/api/kernels?password={story.plant('password of an instance')}"
    headers = {"Authorization": f"token {token}", "Referer": referer}
    assert httpx.post(f"{hub.url}{broken}", headers=headers, content="[1]").status_code == 500
    # Names as long as anybody likes.
    with story.session() as nobody:
        xsrf = nobody.get("/hub/login").cookies.get("_xsrf", "")
        for field in (
            {"username": "u" * 1_000_000, "password": "p"},
            {"username": "alice", "password": "p" * 1_000_000},
        ):
            nobody.post("/hub/login", params={"_xsrf": xsrf}, data=field)
        nobody.get(f"/hub/{'x' * 10_000}")
        nobody.get(f"{PORTAL}{'x' * 10_000}")


def share(story: Story, alice: httpx.Client, token: str) -> None:
    """Makes a share code, shows it, and lets a stranger be led to the login with it."""
    made = story.hub.api("POST", "/share-codes/alice/ilab", token=token, body={})
    assert made.status_code == 200, made.text
    code = story.secrets["share code"] = made.json()["code"]
    assert alice.get("/hub/accept-share", params={"code": code}).status_code == 403, "her own"
    with story.session() as stranger:
        assert "/hub/login" in str(stranger.get("/hub/accept-share", params={"code": code}).url)


def test_x16_no_secret_is_in_any_log(story: Story) -> None:
    logs = story.logs()
    assert {"hub.log", "proxy.log", "log"} <= {path.name for path in logs}
    assert "a defect with" in logs[story.hub.log], "the forced defects are in the log"
    assert len(story.secrets) > 40
    found = [
        (channel, path.name, next(line for line in text.splitlines() if value in line)[:300])
        for channel, value in story.secrets.items()
        for path, text in logs.items()
        if value in text
    ]
    assert found == [], found


def test_no_secret_is_in_a_text_of_the_database(story: Story) -> None:
    with psycopg.connect(story.database) as ours:
        rows = {name: repr(ours.execute(f'SELECT * FROM "{name}"').fetchall()) for name in metadata.tables}
        notes = ours.execute("SELECT text FROM instance_events WHERE kind = 'note'").fetchall()
    assert any("'JUPYTERHUB_API_TOKEN': '[secret]'" in text for (text,) in notes), "what a failed start printed last"
    found = [
        (channel, name) for channel, value in story.secrets.items() for name, text in rows.items() if value in text
    ]
    assert found == [], found


def test_x6_no_line_of_a_log_is_longer_than_a_kilobyte(story: Story) -> None:
    longest: dict[str, Any] = {
        path.name: max((line for line in text.splitlines()), key=len, default="") for path, text in story.logs().items()
    }
    assert {name: line[:200] for name, line in longest.items() if len(line) >= 1024} == {}
    assert re.search(r"x{500}\.\.\. \(1\d{4} characters\)", story.logs()[story.hub.log])
