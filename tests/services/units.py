"""visahub as its units run it: `share/systemd/*.service` read, and their programs started as systemd would.

A machine of tests has no systemd. `Machine` lays out an installation in a folder, starts each unit's own command line
with its environment, user, capabilities, system calls and read-only places, and understands `systemctl`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from tests.services.hub import (
    ACCOUNTS,
    ADMIN_PASSWORD,
    USER_PASSWORD,
    RunningHub,
    wait_until,
)
from visahub.model.experiment import Experiment
from visahub.store.database import Store

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "share" / "systemd"
NAMES = ("visahub-proxy", "visahub-hub", "visahub-portal")
# Numbers of nobody, for the units' own users.
_USERS = {"visahub": 61001, "visahub-proxy": 61002, "": 0}
_STOP_SECONDS = 30


class UnitFile:
    """One unit as it stands in its file: a setting given twice adds, an empty one starts anew."""

    def __init__(self, path: Path) -> None:
        self._settings: dict[str, list[str]] = {}
        for line in path.read_text().splitlines():
            name, equals, value = line.partition("=")
            if equals and not line.startswith(("#", ";")):
                values = self._settings.setdefault(name, [])
                values.append(value) if value else values.clear()

    def all(self, name: str) -> list[str]:
        return self._settings.get(name, [])

    def one(self, name: str, default: str = "") -> str:
        return self.all(name)[-1] if self.all(name) else default

    def words(self, name: str) -> list[str]:
        return " ".join(self.all(name)).split()

    def has(self, name: str) -> bool:
        return self.one(name) == "yes"


_CONFIG = """
from visahub.hub import configure

c = get_config()
c.JupyterHub.bind_url = "http://127.0.0.1:{proxy}"
c.JupyterHub.hub_bind_url = "http://127.0.0.1:{hub}"
c.ConfigurableHTTPProxy.should_start = False
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{proxy_api}"
c.JupyterHub.cleanup_proxy = False
c.JupyterHub.authenticator_class = "tests.services.keeping.KeepingAuthenticator"
c.KeepingAuthenticator.accounts_file = {accounts!r}
c.KeepingAuthenticator.user_password = {user_password!r}
c.KeepingAuthenticator.admin_password = {admin_password!r}
c.JupyterHub.services = [{{"name": "tests", "api_token": {admin_token!r}}}]
c.JupyterHub.load_roles = [
    {{
        "name": "tests",
        "scopes": ["admin:users", "admin:servers", "admin:auth_state", "tokens", "proxy", "read:hub", "read:metrics"],
        "services": ["tests"],
    }}
]
c.Visahub.deployment = {deployment!r}
c.Visahub.database_url = {database_url!r}
c.Visahub.portal_url = "http://127.0.0.1:{portal}"
c.Visahub.start_seconds = 60
c.Visahub.grace_seconds = 1
c.Visahub.backends = ["tests.services.backends.TestedLocalBackend"]
c.TestedLocalBackend.run_root = {run_root!r}
c.TestedLocalBackend.data_dir = {state!r}
c.TestedLocalBackend.home_root = {state!r} + "/homes"
c.TestedLocalBackend.limit_memory = False
c.TestedLocalBackend.proxy_group = "61002"
c.TestedLocalBackend.commands = {{"tiny": {tiny!r}}}
c.Visahub.environments = [
    {{"id": "tiny", "name": "Tiny", "has_desktop": False, "images": {{"local": "tiny"}}}},
    {{"id": "lab", "name": "JupyterLab", "images": {{"local": "this"}}}},
]
c.Visahub.hardware = [
    {{"id": "small", "name": "Small", "backend": "local", "place": "Here", "cores": 1, "memory_mb": 2048}},
]
{more}
configure(c)
"""


class Machine(RunningHub):
    """An installation as docs/operators.md describes it, in a folder; its programs run as the units say."""

    # `crypt_key`, and `pgpass`, a file with the database's password.
    def __init__(self, folder: Path, *, more: str = "", database_url: str = "", **secrets: Any) -> None:
        self.folder, self._secrets = folder, secrets
        self.database_url = database_url or f"sqlite:///{folder}/portal/visahub.sqlite"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.tokens: dict[str, str] = {}
        super().__init__(folder / "hub", more=more)
        self.log = folder / "visahub-hub.log"
        self.places = {
            "/opt/visahub/bin/python": sys.executable,
            "/opt/visahub": sys.prefix,
            "/etc/visahub": str(folder / "etc"),
            "/var/lib/visahub-hub": str(self.state),
            "/var/lib/visahub": str(folder / "portal"),
            "http://127.0.0.1:8081": f"http://127.0.0.1:{self.ports[2]}",
        }

    def _write_config(self, more: str) -> None:
        self.config_file = self.folder / "etc" / "jupyterhub_config.py"
        owner = _USERS["visahub"] if os.geteuid() == 0 else os.geteuid()
        for name, mode in (("etc", 0o755), ("hub", 0o711), ("portal", 0o700)):
            (self.folder / name).mkdir()
            (self.folder / name).chmod(mode)
        os.chown(self.folder / "portal", owner, owner)
        proxy, proxy_api, hub, portal = self.ports
        self.config_file.write_text(
            _CONFIG.format(
                accounts=str(ACCOUNTS),
                user_password=USER_PASSWORD,
                admin_password=ADMIN_PASSWORD,
                admin_token=self.admin_token,
                deployment=f"u{proxy}",
                database_url=self.database_url,
                run_root=str(self.run_root),
                state=str(self.state),
                tiny=[sys.executable, str(Path(__file__).with_name("tiny_server.py"))],
                more=more,
                proxy=proxy,
                proxy_api=proxy_api,
                hub=hub,
                portal=portal,
            )
        )
        self.write_secret("proxy.env", f"CONFIGPROXY_AUTH_TOKEN={secrets.token_hex(32)}")
        self.write_secret("portal.env", f"VISAHUB_PORTAL_TOKEN={self.portal_token}")
        if crypt_key := self._secrets.get("crypt_key"):
            self.write_secret("hub.env", f"JUPYTERHUB_CRYPT_KEY={crypt_key}")
        if pgpass := self._secrets.get("pgpass"):
            file = self.folder / "etc" / "pgpass"
            shutil.copy(pgpass, file)
            os.chown(file, owner, owner)

    def write_secret(self, name: str, text: str) -> None:
        file = self.folder / "etc" / name
        file.touch(0o600)
        file.write_text(f"{text}\n")

    def placed(self, text: str) -> str:
        """Gives a text of a unit or of a page with the places of this installation."""
        pattern = "|".join(re.escape(place) for place in sorted(self.places, key=len, reverse=True))
        return re.sub(f"(?:{pattern})(?![A-Za-z0-9-])", lambda found: self.places[found[0]], text)

    # Units.

    def environ(self, unit: UnitFile) -> dict[str, str]:
        """Gives what systemd would: nothing of the tests' own environment but where their modules are."""
        environ = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": str(ROOT)}
        environ |= {name: os.environ[name] for name in os.environ if name.startswith("COVERAGE")}
        lines = [word for value in unit.all("Environment") for word in value.split()]
        for name in unit.all("EnvironmentFile"):
            file = Path(self.placed(name.removeprefix("-")))
            if file.exists() or not name.startswith("-"):
                assert file.stat().st_mode & 0o077 == 0, file
                lines += [line for line in file.read_text().splitlines() if "=" in line and not line.startswith("#")]
        return environ | dict(self.placed(line).split("=", 1) for line in lines)

    def spec(self, name: str) -> dict[str, Any]:
        """Gives all that `as_unit.py` needs to become a unit's program."""
        unit = UnitFile(UNITS / f"{name}.service")
        root = os.geteuid() == 0
        uid = _USERS[unit.one("User")]
        who = unit.one("User", name) if uid else "root"
        environ = self.environ(unit) | {"HOME": "/nonexistent" if uid else "/root", "USER": who, "LOGNAME": who}
        states = [self.placed(f"/var/lib/{state}") for state in unit.words("StateDirectory")]
        strict = {"strict": ["/"], "full": ["/usr", "/boot", "/etc"], "yes": ["/usr", "/boot"]}
        return {
            "argv": self.placed(unit.one("ExecStart")).split(),
            "environ": environ,
            "directory": self.placed(unit.one("WorkingDirectory", "/")),
            "umask": unit.one("UMask", "0022"),
            "uid": uid if root else 0,
            "capabilities": [word.removeprefix("CAP_") for word in unit.words("CapabilityBoundingSet")],
            "ambient": [word.removeprefix("CAP_") for word in unit.words("AmbientCapabilities")],
            "no_new_privileges": unit.has("NoNewPrivileges"),
            "no_written_code": unit.has("MemoryDenyWriteExecute"),
            "filters": unit.all("SystemCallFilter"),
            "read_only": strict.get(unit.one("ProtectSystem"), []),
            "writable": [*states, "/tmp"] if unit.one("ProtectSystem") == "strict" else [],
            "hide_processes": unit.one("ProtectProc") == "invisible",
        }

    def start_unit(self, name: str) -> None:
        """Starts a unit and returns when it answers, which `systemctl` does not wait for."""
        spec = self.spec(name)
        as_unit = [sys.executable, str(Path(__file__).with_name("as_unit.py")), json.dumps(spec)]
        command = as_unit if os.geteuid() == 0 else spec["argv"]
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=spec["environ"],
                cwd=spec["directory"],
                restore_signals=True,
                start_new_session=True,
            )

    def wait_for(self, *names: str) -> None:
        """Waits until units answer."""
        for name in names:
            try:
                wait_until(lambda name=name: self.answers(name), f"{name} answers", self.processes[name])
            except AssertionError as error:
                raise AssertionError(f"{error}\n{self.tail_of(name)}") from None

    def answers(self, name: str) -> bool:
        proxy, _, hub, portal = self.ports
        addresses = {
            "visahub-proxy": f"http://127.0.0.1:{proxy}/",
            "visahub-hub": f"http://127.0.0.1:{hub}/hub/health",
            "visahub-portal": f"http://127.0.0.1:{portal}/services/visahub/health",
        }
        try:
            status = httpx.get(addresses[name], timeout=5).status_code
        except httpx.HTTPError:
            return False
        return name == "visahub-proxy" or status == 200

    def stop_unit(self, name: str) -> None:
        """Ends a unit as systemd does: the main process is asked, and what it started is left (KillMode)."""
        process = self.processes.pop(name, None)
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"{name} did not end by itself\n{self.tail_of(name)}") from None

    def systemctl(self, line: str) -> None:
        """Does what a line of a page says: `systemctl restart visahub-hub` and the like."""
        _, verb, *units = line.split()
        assert verb in {"start", "stop", "restart"}, line
        names = [unit.removesuffix(".service") for unit in units]
        if "visahub.target" in names:
            names = list(NAMES)
        for name in names:
            assert name in NAMES, line
            if verb in {"stop", "restart"}:
                self.stop_unit(name)
        for name in names:
            if verb in {"start", "restart"}:
                self.start_unit(name)

    def do(self, commands: str, **environ: str) -> str:
        """Does a block of a page's commands and gives what they printed; any failure fails the test."""
        said, waiting = [], list[str]()
        for line in [*commands.replace("\\\n", " ").splitlines(), "systemctl"]:
            if not line.startswith("systemctl"):
                waiting.append(line)
                continue
            if any(waiting):
                said.append(self._shell("\n".join(waiting), environ))
            waiting = []
            if line != "systemctl":
                self.systemctl(line)
                self.wait_for(*self.processes)
        return "".join(said)

    def _shell(self, script: str, environ: dict[str, str]) -> str:
        path = f"{sys.prefix}/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        usual = {"PATH": path, "PYTHONPATH": str(ROOT), "HOME": str(self.folder)}
        command = ["bash", "-euo", "pipefail", "-c", self.placed(script)]
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=self.folder, env=usual | environ, timeout=100, check=False
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
        return done.stdout

    def enter_experiment(self) -> None:
        """Puts one experiment with open data into the catalogue, so that anybody may start something."""
        now = datetime.now(UTC)
        day = now.date() - timedelta(days=400)
        experiment = Experiment(
            id="open", proposal="p1", title="Open", instrument="P03", start=day, end=day, public_at=day
        )
        store = Store(self.database_url)
        store.experiments.replace_source("tests", [experiment], now)
        store.close()

    def begin(self, username: str, server: str) -> httpx.Response:
        """Starts an instance of the tiny kind and waits until it is ready; gives what it tells of itself."""
        if username not in self.tokens:
            self.login(username).close()
            self.tokens[username] = self.token(username)
        options = {"experiments": ["open"], "environment": "tiny", "hardware": "small"}
        answer = self.start_server(username, server, options, token=self.tokens[username])
        assert answer.status_code in {201, 202}, answer.text
        self.wait_ready(username, server)
        return httpx.get(f"{self.url}/user/{username}/{server}/api", timeout=20)

    def tail_of(self, name: str, lines: int = 60) -> str:
        file = self.folder / f"{name}.log"
        return "\n".join(file.read_text(errors="replace").splitlines()[-lines:]) if file.exists() else ""

    def close(self) -> None:
        """Ends everything, the instances too."""
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_SECONDS)
            if process.poll() is None:
                process.kill()
                process.wait()
        for pid in self.instance_pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.run_root, ignore_errors=True)


@contextlib.contextmanager
def machine(folder: Path, **settings: Any) -> Iterator[Machine]:
    """Runs proxy, Hub and portal as their units say."""
    one = Machine(folder, **settings)
    try:
        one.systemctl("systemctl start visahub.target")
        one.wait_for(*NAMES)
        wait_until(one.has_portal, "the portal answers through the proxy")
        one.enter_experiment()
        yield one
    finally:
        one.close()


def passable() -> Path:
    """Makes a folder that other users may pass, which pytest's own are not, and that is not in a /tmp of everybody."""
    folder = Path(tempfile.mkdtemp(prefix="vh-units-", dir="/var/tmp"))
    folder.chmod(0o755)
    return folder


def user_of(pid: int) -> int:
    """Gives the user of a process that runs."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(lines["Uid"].split()[0])


def commands_of(page: str, heading: str) -> list[str]:
    """Gives the blocks of commands below a heading of a page of docs/, in their order."""
    text = (ROOT / "docs" / page).read_text()
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", text, re.S | re.M)
    assert found, f"{page} has no part {heading}"
    return re.findall(r"^```sh\n(.*?)^```", found[1], re.S | re.M)
