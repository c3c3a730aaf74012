"""A real Hub behind a real proxy, in a folder of its own: for tests of `hub/`, of the portal, and in a browser.

`running(folder)` starts both and ends them; `RunningHub` talks to them as a user, and can be killed and started again.
Proxy and Hub are processes of their own, so that the Hub can be killed while everything else goes on.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

from visahub.proxy import command as proxy_command

ROOT = Path(__file__).parents[2]
ACCOUNTS = Path(__file__).with_name("accounts.json")
USER_PASSWORD = "correct horse battery"
ADMIN_PASSWORD = "correct horse battery staple and a few more words"
PATIENCE_SECONDS = 60.0

_CONFIG = """
import sys
from pathlib import Path

from visahub.hub import configure

c = get_config()
state = Path({state!r})
c.JupyterHub.log_level = "DEBUG"
c.JupyterHub.bind_url = "http://127.0.0.1:{proxy}"
c.JupyterHub.subdomain_host = {domains!r}
c.JupyterHub.hub_bind_url = "http://127.0.0.1:{hub}"
c.JupyterHub.db_url = f"sqlite:///{{state}}/jupyterhub.sqlite"
c.JupyterHub.cookie_secret_file = f"{{state}}/cookie_secret"
c.JupyterHub.cleanup_proxy = False
c.ConfigurableHTTPProxy.should_start = False
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{proxy_api}"
c.ConfigurableHTTPProxy.auth_token = {proxy_token!r}
c.JupyterHub.authenticator_class = "visahub.hub.authenticator.SampleAuthenticator"
c.SampleAuthenticator.accounts_file = {accounts!r}
c.SampleAuthenticator.user_password = {user_password!r}
c.SampleAuthenticator.admin_password = {admin_password!r}
# What tests use to act as any user.
c.JupyterHub.services = [{{"name": "tests", "api_token": {admin_token!r}}}]
c.JupyterHub.load_roles = [
    {{
        "name": "tests",
        "scopes": ["admin:users", "admin:servers", "tokens", "proxy", "shutdown", "read:hub", "read:metrics"],
        "services": ["tests"],
    }}
]
c.Visahub.deployment = {deployment!r}
c.Visahub.database_url = f"sqlite:///{{state}}/visahub.sqlite"
c.Visahub.portal_url = "http://127.0.0.1:{portal}"
c.Visahub.start_seconds = 60
c.Visahub.grace_seconds = 1
c.Visahub.backends = ["tests.services.backends.TestedLocalBackend"]
c.TestedLocalBackend.run_root = {run_root!r}
c.TestedLocalBackend.data_dir = str(state)
c.TestedLocalBackend.home_root = str(state / "homes")
c.TestedLocalBackend.limit_memory = False
c.TestedLocalBackend.commands = {{"tiny": {tiny!r}}}
c.Visahub.environments = [
    {{"id": "tiny", "name": "Tiny", "has_desktop": False, "images": {{"local": "tiny"}}}},
    {{"id": "lab", "name": "JupyterLab", "images": {{"local": "this"}}}},
]
c.Visahub.hardware = [
    {{"id": "small", "name": "Small", "backend": "local", "place": "Here", "cores": 1, "memory_mb": 2048}},
    {{
        "id": "large", "name": "Large", "backend": "local", "place": "Here", "cores": 4, "memory_mb": 8192,
        "restriction": {{"roles": ["staff"], "sentence": "Only for staff. Ask your local contact."}},
    }},
]
{more}
configure(c)
"""


class RunningHub:
    """The Hub, its proxy and its folder."""

    def __init__(
        self, state: Path, *, more: str = "", environ: dict[str, str] | None = None, has_domains: bool = False
    ) -> None:
        self.state = state
        self.ports = free_ports(4)
        # Browsers find every name below .localhost on this machine; other programs do not.
        self.domains = f"https://hub.localhost:{self.ports[0]}" if has_domains else ""
        self.admin_token = secrets.token_hex(16)
        self.portal_token = secrets.token_hex(16)
        self._proxy_token = secrets.token_hex(16)
        # Sockets need a short path.
        self.run_root = Path(tempfile.mkdtemp(prefix="vh-", dir="/tmp").lower())
        self.run_root.mkdir(exist_ok=True)
        self._environ = environ or {}
        self.config_file = state / "jupyterhub_config.py"
        self.log = state / "hub.log"
        self._hub: subprocess.Popen[bytes] | None = None
        self._proxy: subprocess.Popen[bytes] | None = None
        self._write_config(more)

    def _write_config(self, more: str) -> None:
        proxy, proxy_api, hub, portal = self.ports
        self.config_file.write_text(
            _CONFIG.format(
                state=str(self.state),
                accounts=str(ACCOUNTS),
                proxy=proxy,
                domains=self.domains,
                proxy_api=proxy_api,
                hub=hub,
                portal=portal,
                proxy_token=self._proxy_token,
                user_password=USER_PASSWORD,
                admin_password=ADMIN_PASSWORD,
                admin_token=self.admin_token,
                deployment=f"t{self.ports[0]}",
                run_root=str(self.run_root),
                tiny=[sys.executable, str(Path(__file__).with_name("tiny_server.py"))],
                more=more,
            )
        )

    @property
    def url(self) -> str:
        """Where users go: the proxy."""
        return f"http{'s' if self.domains else ''}://127.0.0.1:{self.ports[0]}"

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self.ports[2]}/hub/api"

    @property
    def pid(self) -> int:
        assert self._hub is not None
        return self._hub.pid

    @property
    def proxy_pid(self) -> int:
        assert self._proxy is not None
        return self._proxy.pid

    # Processes: started with their signals reset, ended by their own number.

    def start_proxy(self) -> None:
        proxy, proxy_api, hub, _ = self.ports
        command = [*proxy_command(), "--ip", "127.0.0.1", "--port", str(proxy), "--api-ip", "127.0.0.1"]
        command += ["--api-port", str(proxy_api), "--default-target", f"http://127.0.0.1:{hub}"]
        command += ["--error-target", f"http://127.0.0.1:{hub}/hub/error"]
        if self.domains:
            key, certificate = _certificate(self.state)
            command += ["--host-routing", "--ssl-key", key, "--ssl-cert", certificate]
        self._proxy = _popen(command, self.state / "proxy.log", {"CONFIGPROXY_AUTH_TOKEN": self._proxy_token})
        wait_until(lambda: _listens(proxy_api), "the proxy listens", self._proxy)

    def start(self) -> None:
        """Starts the Hub and returns when it answers."""
        command = [sys.executable, "-m", self.module, "-f", str(self.config_file)]
        environ = {"PYTHONPATH": str(ROOT), **self._environ}
        if "VISAHUB_PORTAL_TOKEN" not in self._environ and not self.with_portal:
            environ["VISAHUB_PORTAL_TOKEN"] = self.portal_token
        self._hub = _popen(command, self.log, environ, cwd=self.state)
        try:
            wait_until(self.is_up, "the Hub answers", self._hub)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.tail()}") from None

    # What is started; a benchmark starts a stock Hub beside ours.
    module = "visahub.hub"
    # Whether the Hub starts the portal, as it does for users; else a test asks for rounds itself.
    with_portal = False

    def kill(self) -> None:
        """Ends the Hub as a crash does; instances and proxy go on."""
        assert self._hub is not None
        self._hub.send_signal(signal.SIGKILL)
        self._hub.wait()

    def stop(self) -> None:
        """Ends the Hub as an operator does."""
        if self._hub is not None and self._hub.poll() is None:
            self._hub.send_signal(signal.SIGTERM)
            try:
                self._hub.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill_proxy(self) -> None:
        assert self._proxy is not None
        self._proxy.kill()
        self._proxy.wait()

    def close(self) -> None:
        """Ends everything, the instances too."""
        self.stop()
        if self._proxy is not None and self._proxy.poll() is None:
            self._proxy.terminate()
            self._proxy.wait(10)
        for pid in self.instance_pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.run_root, ignore_errors=True)

    def instance_pids(self) -> list[int]:
        """Gives the processes of this Hub's instances, by the run directory that their environment names."""
        mark = f"VISAHUB_RUNTIME={self.run_root}/".encode()
        found = []
        for process in Path("/proc").iterdir():
            if process.name.isdigit():
                with contextlib.suppress(OSError):
                    if mark in (process / "environ").read_bytes():
                        found.append(int(process.name))
        return found

    def tail(self, lines: int = 60) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    # Asking.

    def is_up(self) -> bool:
        try:
            return httpx.get(f"{self.api_url}/", timeout=2).status_code == 200
        except httpx.HTTPError:
            return False

    def is_settled(self) -> bool:
        """Tells whether the last start of the Hub is complete, with its services."""
        # Those before may have been killed in the middle.
        last = self.log.read_text(errors="replace").rpartition("Running JupyterHub version")[2]
        return "JupyterHub is now running" in last

    def has_portal(self) -> bool:
        """Tells whether the portal answers through the proxy."""
        try:
            headers = {"Host": "visahub--service.hub.localhost"} if self.domains else {}
            address = f"{self.url}/services/visahub/health"
            return httpx.get(address, headers=headers, timeout=5, verify=not self.domains).status_code == 200
        except httpx.HTTPError:
            return False

    def api(self, method: str, path: str, *, token: str = "", body: Any = None) -> httpx.Response:
        """Asks the Hub's API, as the tests' service unless a token is given."""
        headers = {"Authorization": f"token {token or self.admin_token}"}
        content = None if body is None else json.dumps(body)
        return httpx.request(method, f"{self.api_url}{path}", headers=headers, content=content, timeout=60)

    def token(self, username: str) -> str:
        """Gives an API token of a user, who has logged in before."""
        response = self.api("POST", f"/users/{username}/tokens", body={})
        assert response.status_code == 201, response.text
        return str(response.json()["token"])

    def login(self, username: str) -> httpx.Client:
        """Gives a browser's session."""
        admin = username in ADMINS
        session = httpx.Client(base_url=self.url, follow_redirects=False, timeout=60)
        session.get("/hub/login")
        response = session.post(
            "/hub/login",
            params={"_xsrf": session.cookies["_xsrf"]},
            data={"username": username, "password": ADMIN_PASSWORD if admin else USER_PASSWORD},
        )
        assert response.status_code == 302, response.text
        return session

    def start_server(self, username: str, server: str, options: Any, *, token: str = "") -> httpx.Response:
        body = {"display_name": server, "user_options": options}
        return self.api("POST", f"/users/{username}/servers/{server}", token=token, body=body)

    def server(self, username: str, server: str) -> dict[str, Any] | None:
        """Gives what the Hub knows of a server, None for nothing."""
        response = self.api("GET", f"/users/{username}/servers/{server}")
        return response.json() if response.status_code == 200 else None

    def round(self) -> dict[str, Any]:
        response = self.api("POST", "/visahub/round", token=self.portal_token, body={})
        assert response.status_code == 200, response.text
        return dict(response.json())

    def wait_ready(self, username: str, server: str) -> None:
        wait_until(lambda: (self.server(username, server) or {}).get("ready"), f"{server} is ready")


# The sample accounts that need the other password.
ADMINS = {raw["username"] for raw in json.loads(ACCOUNTS.read_text()) if "admin" in raw.get("roles", [])}


@contextlib.contextmanager
def running(
    state: Path, *, more: str = "", with_portal: bool = False, has_domains: bool = False
) -> Iterator[RunningHub]:
    """Runs a Hub with its proxy in a folder; `more` are further lines of its configuration.

    `has_domains` gives Hub, portal and every user a domain of their own, below hub.localhost, with TLS.
    """
    hub = RunningHub(state, more=more, has_domains=has_domains)
    hub.with_portal = with_portal
    try:
        hub.start_proxy()
        hub.start()
        yield hub
    finally:
        hub.close()


def free_ports(count: int) -> list[int]:
    """Gives ports that are free now, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def wait_until(
    is_true: Callable[[], Any],
    what: str,
    process: subprocess.Popen[bytes] | None = None,
    seconds: float = PATIENCE_SECONDS,
) -> None:
    """Waits until something holds; fails at once when the process that it needs has ended."""
    end = time.monotonic() + seconds
    while not is_true():
        assert process is None or process.poll() is None, f"The process ended while waiting until {what}."
        assert time.monotonic() < end, f"Waited {seconds} s in vain until {what}."
        time.sleep(0.05)


def _popen(command: list[str], log: Path, environ: dict[str, str], cwd: Path | None = None) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **environ},
            cwd=cwd,
            restore_signals=True,
            start_new_session=True,
        )


def _certificate(folder: Path) -> tuple[str, str]:
    """Makes the key and the certificate of hub.localhost and all names below it; nobody vouches for them."""
    key, certificate = str(folder / "tls.key"), str(folder / "tls.pem")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=hub.localhost", "-keyout", key, "-out", certificate]
    command += ["-addext", "subjectAltName=DNS:hub.localhost,DNS:*.hub.localhost"]
    subprocess.run(command, check=True, capture_output=True)
    return key, certificate


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
