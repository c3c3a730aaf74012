"""docs/backup.md, run line by line with a real Hub and its instances, on SQLite and on PostgreSQL."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.hub.conftest import OTHERS, OWN, Asking
from tests.services.hub import ROOT, RunningHub, running, wait_until
from tests.services.postgres import Cluster, why_not
from visahub.model.instance import Phase
from visahub.store.database import Store

pytestmark = [pytest.mark.services, pytest.mark.slow, pytest.mark.timeout(300)]

PAGE = ROOT / "docs" / "backup.md"
# What a test cannot run: there is no newer version to install.
NOT_RUN = {"pip install --upgrade visahub"}


def commands(title: str) -> list[str]:
    """Gives the commands of a section, subsections left out."""
    sections = re.split(r"^##+ ", PAGE.read_text(), flags=re.M)
    (section,) = [one for one in sections if one.startswith(f"{title}\n")]
    return [line.strip() for line in section.splitlines() if line.startswith("    ")]


@dataclass
class Site:
    """A Hub whose places stand for those that the page names."""

    asking: Asking
    environ: dict[str, str]
    is_sqlite: bool
    done: list[str] = field(default_factory=list)

    @property
    def hub(self) -> RunningHub:
        return self.asking.hub

    @property
    def copies(self) -> Path:
        return self.hub.state / "backups"

    def do(self, command: str) -> str:
        """Runs one command of the page; units of systemd are the Hub's process here."""
        self.done.append(command)
        if command in NOT_RUN:
            return ""
        if command == "systemctl stop visahub-portal visahub-hub":
            self.hub.kill()
            return ""
        if command == "systemctl start visahub-hub visahub-portal":
            self.hub.start()
            return ""
        assert not command.startswith("systemctl")
        ran = self.run(command)
        assert ran.returncode == 0, f"{command}\n{ran.stdout}{ran.stderr}"
        return ran.stdout

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """Runs a command with the places of this test."""
        command = command.replace("/etc/visahub/jupyterhub_config.py", str(self.hub.config_file))
        command = command.replace("/var/backups/visahub", str(self.copies))
        command = command.replace(
            "/var/lib/visahub-hub/jupyterhub_cookie_secret", str(self.hub.state / "cookie_secret")
        )
        return subprocess.run(
            ["bash", "-c", command],
            env=self.environ,
            cwd=self.hub.state,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def do_all(self, title: str) -> None:
        for command in commands(title):
            self.do(command)


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environ = {"PATH": path, "PYTHONPATH": str(ROOT), "HOME": "/nonexistent", "LANG": "C.UTF-8"}
    state = tmp_path_factory.mktemp("hub")
    if request.param == "sqlite":
        with running(state) as hub:
            yield made(Asking(hub), environ, is_sqlite=True)
        return
    if reason := why_not():
        pytest.skip(reason)
    with Cluster() as cluster:
        for name in ("visahub", "jupyterhub"):
            cluster.named(name)
        ours = cluster.url("visahub")
        store = Store(ours)
        store.upgrade()
        store.close()
        environ |= {"PGHOST": str(cluster.folder), "PGUSER": "visahub"}
        lines = f"c.JupyterHub.db_url = {cluster.url('jupyterhub')!r}\nc.Visahub.database_url = {ours!r}"
        with running(state, more=lines) as hub:
            yield made(Asking(hub, ours), environ, is_sqlite=False)


def made(asking: Asking, environ: dict[str, str], *, is_sqlite: bool) -> Site:
    asking.experiments(OWN, OTHERS)
    return Site(asking, {**environ, "VISAHUB_PORTAL_TOKEN": asking.hub.portal_token}, is_sqlite)


def test_backup_restore_and_upgrade_as_the_page_says(site: Site) -> None:
    asking, hub = site.asking, site.hub
    yesterday = asking.started()
    pid = asking.visit(yesterday)["pid"]

    site.do_all("Backup")
    end = "sqlite" if site.is_sqlite else "dump"
    expected = {f"visahub.{end}", f"jupyterhub.{end}", "cookie_secret"}
    found = {
        file.name.replace("jupyterhub_cookie_secret", "cookie_secret") for file in (site.copies / "today").iterdir()
    }
    assert found == expected
    assert {file.stat().st_mode & 0o777 for file in (site.copies / "today").iterdir()} == {0o600}

    today = asking.started()
    attempt = asking.row(today).attempt

    # While the Hub runs nothing is put back under it.
    refused = site.run(commands("Restore")[1])
    assert refused.returncode != 0
    assert f"process {hub.pid}" in refused.stderr
    assert asking.row(today).phase is Phase.READY

    said = restored(site)
    assert attempt in said
    asking.tokens.clear()
    # Both copies are older: what is of yesterday is as it was, what is of today is told and goes on.
    hub.wait_ready("alice", yesterday)
    assert asking.visit(yesterday)["pid"] == pid
    assert asking.row(today) is None
    for _ in range(3):
        assert hub.round()["unknown"] == [attempt]
    site.do(f"visahub strays end {attempt} --really --config {hub.config_file}")
    wait_until(lambda: hub.round()["unknown"] == [], "it has ended")

    site.do_all("Upgrade")
    hub.wait_ready("alice", yesterday)
    assert asking.visit(yesterday)["pid"] == pid
    assert (site.copies / "before-upgrade" / f"visahub.{end}").stat().st_size > 1000
    asking.started()


def restored(site: Site) -> str:
    """Does what the section says and gives the last answer; a dead Hub's minute need not pass twice in a test."""
    stop, *rest = commands("Restore")
    site.do(stop)
    lease = site.asking.store.leases.held()
    assert lease is not None
    # As after an orderly stop.
    site.asking.store.leases.release(lease.holder, datetime.now(UTC))
    site.asking.store.close()
    if not site.is_sqlite:
        # Nothing is mixed with what is there.
        with_tables = site.run(rest[0])
        assert with_tables.returncode != 0
        assert "is not empty" in with_tables.stderr
        site.do_all("PostgreSQL")
    return [site.do(command) for command in rest][-1]


def test_every_command_of_the_page_is_run(site: Site) -> None:
    everything = {command for title in ("Backup", "Restore", "Upgrade") for command in commands(title)}
    if not site.is_sqlite:
        everything |= set(commands("PostgreSQL"))
    assert everything <= set(site.done)
    assert len(everything) >= 11
