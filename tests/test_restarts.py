"""Restarts as docs/operations.md describes them: a kernel and a page of a running instance go on; and what is told."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx
import pytest
from tornado.httpclient import HTTPRequest
from tornado.websocket import WebSocketClientConnection, websocket_connect

from tests.services.hub import wait_until
from tests.services.units import Machine, commands_of, machine, passable
from visahub import doctor
from visahub.doctor.findings import Finding, Grade
from visahub.model.instance import new_instance_id
from visahub.singleuser import launcher

pytestmark = [
    pytest.mark.services,
    pytest.mark.timeout(300),
    pytest.mark.skipif(os.geteuid() != 0, reason="Only root may become the units' users"),
]
PORTAL = "/services/visahub/"
RESTARTS = {block.split()[2]: block for block in commands_of("operations.md", "Restart without interruption")}


@pytest.fixture(scope="module")
def units() -> Iterator[Machine]:
    folder = passable()
    try:
        with machine(folder) as one:
            yield one
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass
class Work:
    """Somebody at work: a terminal's websocket and pages of JupyterLab, asked again and again, and what failed."""

    url: str
    headers: dict[str, str]
    socket: WebSocketClientConnection
    asked: int = 0
    echoed: int = 0
    failures: list[str] = field(default_factory=list)

    async def go_on(self) -> None:
        async with httpx.AsyncClient(headers=self.headers, timeout=30) as client:
            while True:
                answer = await client.get(f"{self.url}/api/status")
                self.asked += 1
                if answer.status_code != 200:
                    self.failures.append(f"status {answer.status_code}: {answer.text[:100]}")
                await self.echo()
                await asyncio.sleep(0.1)

    async def echo(self) -> None:
        """Types into the terminal and waits for what it answers."""
        mark = f"echo-{self.echoed}"
        await self.socket.write_message(json.dumps(["stdin", f"echo {mark[:4]}'{mark[4:]}'\r"]))
        said = ""
        while mark not in said:
            # Not `wait_for`, which may lose a cancellation (python/cpython#86296).
            async with asyncio.timeout(30):
                message = await self.socket.read_message()
            if message is None:
                self.failures.append("the websocket was closed")
                raise ConnectionError("the websocket was closed")
            kind, text = json.loads(message)[:2]
            said += str(text) if kind == "stdout" else ""
        self.echoed += 1


@asynccontextmanager
async def at_work(units: Machine, server: str) -> AsyncIterator[Work]:
    """Works in an instance with JupyterLab until the end; a failure to go on is kept in `failures`."""
    units.login("alice").close()
    token = units.tokens.setdefault("alice", units.token("alice"))
    if not (units.server("alice", server) or {}).get("ready"):
        options = {"experiments": ["open"], "environment": "lab", "hardware": "small"}
        answer = units.start_server("alice", server, options, token=token)
        assert answer.status_code in {201, 202}, answer.text
        units.wait_ready("alice", server)
    url, headers = f"{units.url}/user/alice/{server}", {"Authorization": f"token {token}"}
    async with httpx.AsyncClient(headers=headers, timeout=60) as client:
        name = (await client.post(f"{url}/api/terminals")).json()["name"]
    address = f"{url.replace('http', 'ws', 1)}/terminals/websocket/{name}"
    work = Work(url, headers, await websocket_connect(HTTPRequest(address, headers=headers)))
    await work.echo()
    task = asyncio.create_task(work.go_on())
    try:
        yield work
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        work.socket.close()


@pytest.mark.parametrize("unit", ["visahub-hub", "visahub-portal"])
async def test_a_restart_is_not_felt_in_an_instance(units: Machine, unit: str) -> None:
    async with at_work(units, "restarts") as work:
        before = units.processes[unit].pid
        await asyncio.to_thread(units.do, RESTARTS[unit])
        assert units.processes[unit].pid != before
        await asyncio.to_thread(wait_until, units.has_portal, "the portal answers through the proxy")
        asked, echoed = work.asked, work.echoed
        await asyncio.sleep(1)
        assert work.asked > asked
        assert work.echoed > echoed
        assert work.failures == []
    with closing(units.login("alice")) as session:
        session.follow_redirects = True
        assert "restarts" in session.get(PORTAL).text


async def test_an_instance_goes_on_for_as_long_as_a_restart_may_take(units: Machine) -> None:
    """Longer than an instance believes a login without asking the Hub."""
    async with at_work(units, "restarts") as work:
        await asyncio.to_thread(units.systemctl, "systemctl stop visahub-hub")
        try:
            asked = work.asked
            await asyncio.sleep(launcher._LOGIN_CACHE_SECONDS + 3)
            assert work.asked > asked
        finally:
            units.systemctl("systemctl start visahub-hub")
            await asyncio.to_thread(units.wait_for, "visahub-hub")
        assert work.failures == []
        async with httpx.AsyncClient(headers={"Authorization": "token wrong"}, timeout=30) as stranger:
            assert (await stranger.get(f"{work.url}/api/contents")).status_code in {401, 403}


async def test_a_new_proxy_gets_its_routes_back_by_itself_and_says_503_until_then(units: Machine) -> None:
    paths = ("/user/alice/restarts/api/status", "/hub/health", f"{PORTAL}health")
    async with at_work(units, "restarts") as work:
        pids = units.instance_pids()
        hub = units.processes["visahub-hub"].pid
        # A Hub that is busy with something else: until it looks, the new proxy knows no route.
        os.kill(hub, signal.SIGSTOP)
        try:
            await asyncio.to_thread(units.systemctl, RESTARTS["visahub-proxy"].strip())
            await asyncio.to_thread(units.wait_for, "visahub-proxy")
            async with httpx.AsyncClient(headers=work.headers, timeout=30) as client:
                for path in paths:
                    answer = await client.get(f"{units.url}{path}")
                    # Nothing that a browser or JupyterLab would take for the end of a kernel.
                    assert answer.status_code == 503, path
                    assert "<h1>One moment</h1>" in answer.text
        finally:
            os.kill(hub, signal.SIGCONT)
        for path in paths:
            await asyncio.to_thread(wait_until, partial(is_well, units, path, work.headers), f"{path} is led to again")
    # The terminal and its shell are still there.
    assert set(pids) <= set(units.instance_pids())
    async with at_work(units, "restarts") as again:
        await asyncio.sleep(0.5)
        assert again.failures == []


def is_well(units: Machine, path: str, headers: dict[str, str]) -> bool:
    return httpx.get(f"{units.url}{path}", headers=headers, timeout=30).status_code == 200


def test_pages_say_503_with_a_sentence_while_the_hub_is_away(units: Machine) -> None:
    with closing(units.login("alice")) as session:
        session.follow_redirects = True
        assert session.get(PORTAL).status_code == 200
        session.follow_redirects = False
        token = units.tokens.setdefault("alice", units.token("alice"))
        xsrf = next(cookie.value for cookie in session.cookies.jar if cookie.name == "_xsrf" and PORTAL in cookie.path)
        units.systemctl("systemctl stop visahub-hub")
        try:
            for path in ("/hub/home", "/hub/login", "/hub/spawn", "/hub/api/user", "/"):
                answer = session.get(path)
                assert answer.status_code == 503, path
                assert "Running instances go on" in answer.text
            seen = {
                path: session.get(f"{PORTAL}{path}") for path in ("", "new", "experiments", "instances/x", "health")
            }
            # Whoever was seen by the portal a moment ago is still known; all others are told.
            assert {answer.status_code for answer in seen.values()} <= {200, 404, 503}, seen
            form = {"_xsrf": xsrf, "experiment": "open", "environment": "tiny", "hardware": "small"}
            form["server_name"] = new_instance_id()
            posted = session.post(f"{PORTAL}instances", data=form)
            assert posted.status_code == 503, posted.text
            assert "The Hub does not answer" in posted.text
            with httpx.Client(base_url=units.url, headers={"Authorization": f"token {token}"}, timeout=60) as program:
                for path in ("api/instances", "api/offers", "api/experiments"):
                    answer = program.get(f"{PORTAL}{path}")
                    assert answer.status_code == 503, answer.text
                    assert "Retry-After" in answer.headers
                    assert "Hub does not answer" in answer.json()["message"]
            with httpx.Client(base_url=units.url, timeout=60, follow_redirects=True) as stranger:
                assert stranger.get(PORTAL).status_code == 503
        finally:
            units.systemctl("systemctl start visahub-hub")
            units.wait_for("visahub-hub")
        wait_until(lambda: session.get("/hub/home").status_code in {200, 302}, "the Hub's pages are back")


# What the doctor sees of what runs.


def found(units: Machine, check: str) -> Finding:
    return {finding.check: finding for finding in doctor.examine(units.config_file)}[check]


def test_the_doctor_is_content_with_what_runs(units: Machine) -> None:
    wait_until(lambda: found(units, "tokens of hub and portal").grade is Grade.OK, "a round was done")
    findings = {finding.check: finding for finding in doctor.examine(units.config_file)}
    for check in ("running hub", "running portal", "running proxy", "tokens of hub and portal", "strays", "ports"):
        assert findings[check].grade is Grade.OK, findings[check]
    assert findings["names of settings"].grade is Grade.OK, findings["names of settings"]


@pytest.mark.parametrize(
    ("unit", "check"),
    [
        ("visahub-hub", "running hub"),
        ("visahub-portal", "running portal"),
        ("visahub-proxy", "running proxy"),
    ],
)
def test_a_dead_unit_is_seen(units: Machine, unit: str, check: str) -> None:
    units.processes[unit].send_signal(signal.SIGKILL)
    units.processes[unit].wait()
    try:
        finding = found(units, check)
    finally:
        units.start_unit(unit)
        units.wait_for(unit)
    assert finding.grade is Grade.PROBLEM
    assert f"systemctl restart {unit}" in finding.sentence
    wait_until(units.has_portal, "the portal answers through the proxy")


def test_a_portal_with_another_token_than_the_hubs_is_seen(units: Machine) -> None:
    file = units.folder / "etc" / "portal.env"
    right = file.read_text()
    file.write_text(f"VISAHUB_PORTAL_TOKEN={'0123456789abcdef' * 4}\n")
    units.systemctl("systemctl restart visahub-portal")
    units.wait_for("visahub-portal")
    try:
        # The file is new, the Hub is old.
        finding = found(units, "tokens of hub and portal")
        assert finding.grade is Grade.PROBLEM
        assert "systemctl restart visahub-hub visahub-portal" in finding.sentence
        # The file is the Hub's, the portal is not.
        file.write_text(right)
        wait_until(lambda: found(units, "tokens of hub and portal").grade is Grade.PROBLEM, "the round was refused")
    finally:
        file.write_text(right)
        units.systemctl("systemctl restart visahub-portal")
        units.wait_for("visahub-portal")


def test_a_proxy_with_another_token_than_the_hubs_is_seen(units: Machine) -> None:
    file = units.folder / "etc" / "proxy.env"
    right = file.read_text()
    file.write_text(f"CONFIGPROXY_AUTH_TOKEN={'0123456789abcdef' * 4}\n")
    try:
        finding = found(units, "running proxy")
    finally:
        file.write_text(right)
    assert finding.grade is Grade.PROBLEM
    assert "systemctl restart visahub-proxy visahub-hub" in finding.sentence


def test_what_runs_and_no_row_knows_is_told_and_left_alone(units: Machine, tmp_path: Path) -> None:
    """The database of yesterday, before the instance was started."""
    from visahub.backends.local_runs import Record, Runs

    deployment = f"u{units.ports[0]}"
    run = Runs(units.run_root, deployment).make(
        Record(attempt="stray0attempt", instance_id="istray", uid=0, gid=0, home=str(tmp_path))
    )
    sleeper = subprocess.Popen(["sleep", "600"])
    try:
        started = Path(f"/proc/{sleeper.pid}/stat").read_text().rpartition(")")[2].split()[19]
        run.pid_file.write_text(json.dumps({"pid": sleeper.pid, "started": int(started)}))
        finding = found(units, "strays")
        assert sleeper.poll() is None
    finally:
        sleeper.kill()
        sleeper.wait()
        run.remove()
    assert finding.grade is Grade.WARNING, finding
    assert "stray0attempt (local)" in finding.sentence
    assert "docs/backup.md" in finding.sentence
