"""The units of share/systemd/: what they may do at most, and that their own command lines work under it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import httpx
import pytest
from tornado.httpclient import HTTPRequest
from tornado.websocket import websocket_connect

from tests.services.hub import wait_until
from tests.services.units import NAMES, UNITS, Machine, UnitFile, machine, passable, user_of

# The exposure that `systemd-analyze security` may give at most, of 10. Without any of our lines it gives 9.6.
BOUNDS = {"visahub-portal": 1.5, "visahub-proxy": 1.8, "visahub-hub": 5.5}
pytestmark = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="Only root may become the units' users")


@pytest.mark.parametrize("name", NAMES)
def test_a_unit_may_do_little(name: str) -> None:
    said = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(UNITS / f"{name}.service")],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    score = float(re.findall(r"Overall exposure level for .*: ([\d.]+)", said)[0])
    assert score <= BOUNDS[name], said


def test_the_units_are_right(tmp_path: Path) -> None:
    for file in UNITS.glob("visahub*.[st]*"):
        text = file.read_text().replace("/opt/visahub/bin", str(Path(sys.executable).parent))
        (tmp_path / file.name).write_text(text)
    units = sorted(str(file) for file in tmp_path.glob("visahub*") if file.suffix in {".service", ".target"})
    assert len(units) == 4
    # `--man=no`: what a machine has of manual pages is not ours.
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, timeout=60, check=False
    )
    ours = [line for line in done.stderr.splitlines() if "visahub" in line]
    assert done.returncode == 0, done.stderr
    assert ours == []


@needs_root
def test_the_units_users_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    subprocess.run(
        ["systemd-sysusers", f"--root={tmp_path}", str(UNITS / "visahub.sysusers.conf")], check=True, timeout=60
    )
    made = (tmp_path / "etc" / "passwd").read_text()
    for name in NAMES:
        user = UnitFile(UNITS / f"{name}.service").one("User")
        assert not user or f"{user}:x:" in made


def test_no_secret_stands_in_a_unit_and_every_file_of_secrets_is_the_same_for_all_who_need_it() -> None:
    files = {name: UnitFile(UNITS / f"{name}.service").all("EnvironmentFile") for name in NAMES}
    assert files["visahub-proxy"] == ["/etc/visahub/proxy.env"]
    assert files["visahub-portal"] == ["/etc/visahub/portal.env"]
    assert files["visahub-hub"] == ["/etc/visahub/proxy.env", "/etc/visahub/portal.env", "-/etc/visahub/hub.env"]
    for name in NAMES:
        assert "TOKEN=" not in (UNITS / f"{name}.service").read_text()


def test_a_restart_of_the_hub_ends_no_instance() -> None:
    hub = UnitFile(UNITS / "visahub-hub.service")
    assert hub.one("KillMode") == "process"
    assert hub.one("OOMPolicy") == "continue"
    assert hub.one("TimeoutStopSec") == "90"
    # systemd would remove it with the sockets of all instances.
    assert hub.all("RuntimeDirectory") == []


ACCOUNT = f"vhunit{os.getpid()}"
UID_MIN = 40_000 + os.getpid() % 10_000
MORE = f"""
c.Visahub.uid_min = {UID_MIN}
c.Visahub.backends = ["visahub.backends.local.LocalBackend"]
for name in ("run_root", "data_dir", "home_root", "limit_memory", "proxy_group", "commands"):
    c.LocalBackend[name] = c.TestedLocalBackend[name]
"""


@pytest.fixture(scope="module")
def units() -> Iterator[Machine]:
    """All three units, with an account of the facility that this machine has never seen."""
    folder = passable()
    accounts = folder / "accounts.json"
    accounts.write_text(json.dumps([{"username": ACCOUNT, "display_name": "Unit Tester"}]))
    more = f"{MORE}\nc.KeepingAuthenticator.accounts_file = {str(accounts)!r}\n"
    try:
        with machine(folder, more=more) as one:
            yield one
    finally:
        subprocess.run(["userdel", ACCOUNT], check=False, capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.services
@needs_root
class TestRunning:
    """The units' own command lines with what systemd would apply: users, capabilities, system calls, closed places."""

    def test_each_runs_as_its_user_with_its_capabilities(self, units: Machine) -> None:
        users = {name: user_of(process.pid) for name, process in units.processes.items()}
        assert users["visahub-hub"] == 0
        assert len(set(users.values())) == 3
        for name, process in units.processes.items():
            status = Path(f"/proc/{process.pid}/status").read_text()
            assert "NoNewPrivs:\t1" in status, name
            assert "Seccomp:\t2" in status, name
        assert int(re.findall(r"CapBnd:\t(\w+)", _status(units, "visahub-portal"))[0], 16) == 0

    def test_a_person_works_in_an_instance_with_a_unix_account(self, units: Machine) -> None:
        """From the login to the end: the Hub's few capabilities are enough to make an account and to end its work."""
        with closing(units.login(ACCOUNT)) as session:
            session.follow_redirects = True
            assert "My instances" in session.get("/services/visahub/").text
        seen = units.begin(ACCOUNT, "first").json()
        assert user_of(seen["pid"]) == UID_MIN
        # The instance knows nothing of the units' secrets, and inherits no right.
        files = (units.folder / "etc").glob("*.env")
        secrets = [line.split("=", 1)[1] for file in files for line in file.read_text().splitlines()]
        assert not any(secret in json.dumps(seen["environ"]) for secret in secrets)
        assert "CapEff:\t0000000000000000" in Path(f"/proc/{seen['pid']}/status").read_text()
        units.systemctl("systemctl restart visahub-hub")
        units.wait_for("visahub-hub")
        wait_until(lambda: (units.server(ACCOUNT, "first") or {}).get("ready"), "the Hub knows it again")
        assert httpx.get(f"{units.url}/user/{ACCOUNT}/first/api", timeout=20).json()["pid"] == seen["pid"]
        units.api("DELETE", f"/users/{ACCOUNT}/servers/first", token=units.tokens[ACCOUNT])
        wait_until(lambda: not Path(f"/proc/{seen['pid']}").exists(), "its processes have ended")

    async def test_jupyterlab_and_a_desktop_run_under_what_the_hubs_unit_closes(self, units: Machine) -> None:
        """Instances inherit what the unit closes: Xvnc, XFCE and JupyterLab have to live with it."""
        if ACCOUNT not in units.tokens:
            units.login(ACCOUNT).close()
            units.tokens[ACCOUNT] = units.token(ACCOUNT)
        headers = {"Authorization": f"token {units.tokens[ACCOUNT]}"}
        options = {"experiments": ["open"], "environment": "lab", "hardware": "small"}
        started = units.start_server(ACCOUNT, "desk", options, token=units.tokens[ACCOUNT])
        assert started.status_code in {201, 202}, started.text
        await asyncio.to_thread(units.wait_ready, ACCOUNT, "desk")
        address = f"ws://127.0.0.1:{units.ports[0]}/user/{ACCOUNT}/desk/visahub/desktop/socket"
        socket = await websocket_connect(HTTPRequest(address, headers=headers, request_timeout=60))
        assert bytes(await asyncio.wait_for(socket.read_message(), 60)).startswith(b"RFB 003.008")
        socket.close()
        assert "Xvnc" in names_of(units)
        await asyncio.to_thread(wait_until, lambda: "xfce4-session" in names_of(units), "XFCE runs")
        units.api("DELETE", f"/users/{ACCOUNT}/servers/desk", token=units.tokens[ACCOUNT])
        await asyncio.to_thread(wait_until, lambda: not units.instance_pids(), "all its processes have ended")

    def test_the_portal_reads_no_secret_of_the_others(self, units: Machine) -> None:
        """As its user: not the files of secrets, not the Hub's database, nothing that it could change in /etc."""
        portal = user_of(units.processes["visahub-portal"].pid)
        files = [*(units.folder / "etc").glob("*.env"), units.state / "jupyterhub.sqlite"]
        files.append(units.state / "jupyterhub_cookie_secret")
        for file in files:
            assert file.exists(), file
            read = ["setpriv", f"--reuid={portal}", f"--regid={portal}", "--clear-groups", "cat", str(file)]
            assert subprocess.run(read, capture_output=True, check=False).returncode != 0, file
        mounts = Path(f"/proc/{units.processes['visahub-portal'].pid}/mounts").read_text()
        root = next(line for line in mounts.splitlines() if line.split()[1] == "/")
        assert root.split()[3].startswith("ro")

    def test_the_proxy_says_what_is_missing(self, units: Machine) -> None:
        spec = units.spec("visahub-proxy")
        environ = {name: value for name, value in spec["environ"].items() if name != "CONFIGPROXY_AUTH_TOKEN"}
        ended = subprocess.run(spec["argv"], env=environ, capture_output=True, text=True, timeout=60, check=False)
        assert ended.returncode == 1
        assert "CONFIGPROXY_AUTH_TOKEN" in ended.stderr
        assert "Traceback" not in ended.stderr


def names_of(units: Machine) -> set[str]:
    """Gives the names of the processes of all instances."""
    found = set()
    for pid in units.instance_pids():
        with suppress(OSError):
            found.add(Path(f"/proc/{pid}/comm").read_text().strip())
    return found


def _status(units: Machine, name: str) -> str:
    return Path(f"/proc/{units.processes[name].pid}/status").read_text()
