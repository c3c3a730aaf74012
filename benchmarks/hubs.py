"""Two Hubs side by side, ours and a stock one: same version, same machine, same minute, each behind a proxy of its own.

One Hub has one spawner class, so "the same Hub" with two spawners is two Hubs. Both answer a start only when the server
is ready, which takes the asking out of the figures.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tests.services import hub as service
from tests.services.hub import RunningHub

_Hub = TypeVar("_Hub", bound=RunningHub)
# With both the request lasts until the server is ready.
_WAIT = 'c.JupyterHub.tornado_settings = {"slow_spawn_timeout": 120, "slow_stop_timeout": 120}\n'
_LESS_LOG = 'c.JupyterHub.log_level = "INFO"\n'
_ACCOUNTS = "c.SampleAuthenticator.accounts_file = {path!r}\n"
_STOCK = """
c = get_config()
c.JupyterHub.bind_url = "http://127.0.0.1:{proxy}"
c.JupyterHub.hub_bind_url = "http://127.0.0.1:{hub}"
c.JupyterHub.db_url = "sqlite:///{state}/jupyterhub.sqlite"
c.JupyterHub.cookie_secret_file = "{state}/cookie_secret"
c.JupyterHub.cleanup_proxy = False
c.JupyterHub.cleanup_servers = False
c.ConfigurableHTTPProxy.should_start = False
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{proxy_api}"
c.ConfigurableHTTPProxy.auth_token = {proxy_token!r}
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allow_all = True
c.JupyterHub.allow_named_servers = True
c.JupyterHub.concurrent_spawn_limit = 50
c.JupyterHub.services = [{{"name": "tests", "api_token": {admin_token!r}}}]
c.JupyterHub.load_roles = [
    {{
        "name": "tests",
        "scopes": ["admin:users", "admin:servers", "tokens", "proxy", "shutdown", "read:hub", "read:metrics"],
        "services": ["tests"],
    }}
]
{more}
"""


class OurHub(RunningHub):
    """visahub, with the portal as a part of it, or without one."""

    choice: Mapping[str, Any] = {"user_options": {"experiments": [], "environment": "lab", "hardware": "small"}}

    def __init__(self, state: Path, *, users: Sequence[str], more: str = "", with_portal: bool = True) -> None:
        accounts = state / "accounts.json"
        accounts.write_text(json.dumps([{"username": name, "roles": ["staff"], "quota": -1} for name in users]))
        super().__init__(state, more=_LESS_LOG + _WAIT + _ACCOUNTS.format(path=str(accounts)) + more)
        self.with_portal = with_portal
        self._users = users

    def enter(self) -> None:
        """Logs everybody in once: an account begins with its login."""
        for name in self._users:
            self.login(name).close()


class StockHub(RunningHub):
    """JupyterHub as it comes, only with the ports and folders of a test."""

    module = "jupyterhub"
    choice: Mapping[str, Any] = {}

    def __init__(self, state: Path, *, users: Sequence[str], more: str) -> None:
        super().__init__(state, more=_WAIT + more)
        self._users = users

    def _write_config(self, more: str) -> None:
        proxy, proxy_api, hub, _ = self.ports
        self.config_file.write_text(
            _STOCK.format(
                state=self.state,
                proxy=proxy,
                proxy_api=proxy_api,
                hub=hub,
                proxy_token=self._proxy_token,
                admin_token=self.admin_token,
                more=more,
            )
        )

    def enter(self) -> None:
        assert self.api("POST", "/users", body={"usernames": list(self._users)}).status_code == 201


@contextlib.contextmanager
def running(make: Callable[[Path], _Hub], *, where: str | None = None) -> Iterator[_Hub]:
    """Runs a Hub and its proxy in a folder of their own, and ends all of it."""
    with tempfile.TemporaryDirectory(prefix="vhb-", dir=where) as folder:
        hub = make(Path(folder))
        try:
            hub.start_proxy()
            hub.start()
            service.wait_until(hub.is_settled, "the Hub has started", seconds=120)
            yield hub
        finally:
            hub.close()


def memory_disk() -> str | None:
    """Gives where files are kept in memory: for figures that are about processors, not about disks."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def processor_seconds(pid: int) -> float:
    """Gives how much processor time all threads of a process have used until now, to the nanosecond.

    /proc/PID/stat counts in steps of 10 ms, which is more than a round takes.
    """
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


def resident_mb(pid: int) -> float:
    """Gives the memory of a process that is in use now, in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0
