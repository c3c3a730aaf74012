"""New secrets for old ones, by the commands of docs/operations.md; with a lost one nothing is lost but logins (F25)."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from tests.services import postgres
from tests.services.hub import wait_until
from tests.services.units import Machine, commands_of, machine, passable
from visahub.store.database import Store

pytestmark = [
    pytest.mark.services,
    pytest.mark.timeout(300),
    pytest.mark.skipif(os.geteuid() != 0, reason="Only root may become the units' users"),
]
PORTAL = "/services/visahub/"
MORE = "c.KeepingAuthenticator.enable_auth_state = True"
KEPT = {"kept": "something of alice"}


@pytest.fixture(scope="module")
def units() -> Iterator[Machine]:
    folder = passable()
    try:
        with machine(folder, more=MORE, crypt_key=secrets.token_hex(32)) as one:
            yield one
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def alice(units: Machine) -> Iterator[httpx.Client]:
    """A browser that has been in the portal."""
    with closing(units.login("alice")) as session:
        assert landed(session, PORTAL).status_code == 200
        yield session


def landed(session: httpx.Client, address: str) -> httpx.Response:
    """Follows redirects to where they end."""
    session.follow_redirects = True
    try:
        return session.get(address)
    finally:
        session.follow_redirects = False


def rotate(units: Machine, heading: str, **environ: str) -> None:
    """Does what the page says below a heading, and waits until people reach the pages again."""
    (block,) = commands_of("operations.md", heading)
    units.do(block, JUPYTERHUB_API_TOKEN=units.admin_token, **environ)
    wait_until(units.has_portal, "the portal answers through the proxy")


def visit(units: Machine, server: str = "steady") -> dict[str, Any]:
    """Asks alice's instance, which is started at the first time; it tells its process and its environment."""
    if not (units.server("alice", server) or {}).get("ready"):
        return dict(units.begin("alice", server).json())
    return dict(httpx.get(f"{units.url}/user/alice/{server}/api", timeout=20).json())


def secret(units: Machine, name: str) -> str:
    """Gives the value in a file of secrets."""
    return (units.folder / "etc" / name).read_text().strip().partition("=")[2]


def is_login_page(answer: httpx.Response) -> bool:
    return answer.url.path == "/hub/login" and answer.status_code == 200


def kept(units: Machine) -> Any:
    return units.api("GET", "/users/alice").json()["auth_state"]


def test_new_secrets_are_made_as_the_page_says(units: Machine, tmp_path: Path) -> None:
    (block,) = commands_of("operations.md", "The three units")
    subprocess.run(["bash", "-euc", block.replace("/etc/visahub", str(tmp_path))], check=True, timeout=60)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["hub.env", "portal.env", "proxy.env"]
    for file in tmp_path.iterdir():
        assert re.fullmatch(r"[A-Z_]+=[0-9a-f]{64}\n", file.read_text())
        assert file.stat().st_mode & 0o777 == 0o600


def check_all_log_in_again_and_nothing_else(units: Machine, alice: httpx.Client, before: dict[str, Any]) -> None:
    assert is_login_page(landed(alice, "/hub/home"))
    assert is_login_page(landed(alice, PORTAL))
    assert visit(units) == before
    # Tokens of scripts and of the instance are still good, and a new login works.
    for token in (units.tokens["alice"], before["environ"]["JUPYTERHUB_API_TOKEN"]):
        assert units.api("GET", "/user", token=token).status_code == 200
    with closing(units.login("alice")) as again:
        assert "steady" in landed(again, PORTAL).text


def test_the_cookie_secret(units: Machine, alice: httpx.Client) -> None:
    before = visit(units)
    old = (units.state / "jupyterhub_cookie_secret").read_text()
    rotate(units, "The cookie secret")
    assert (units.state / "jupyterhub_cookie_secret").read_text() != old
    assert (units.state / "jupyterhub_cookie_secret").stat().st_mode & 0o077 == 0
    check_all_log_in_again_and_nothing_else(units, alice, before)


def test_f25_a_lost_cookie_secret_costs_logins_and_nothing_else(units: Machine, alice: httpx.Client) -> None:
    before = visit(units)
    units.systemctl("systemctl stop visahub.target")
    (units.state / "jupyterhub_cookie_secret").unlink()
    units.systemctl("systemctl start visahub.target")
    units.wait_for(*units.processes)
    wait_until(units.has_portal, "the portal answers through the proxy")
    units.wait_ready("alice", "steady")
    check_all_log_in_again_and_nothing_else(units, alice, before)


def test_f25_a_lost_crypt_key_costs_what_logins_kept_and_nothing_else(units: Machine, alice: httpx.Client) -> None:
    before = visit(units)
    assert kept(units) == KEPT
    units.systemctl("systemctl stop visahub-hub")
    units.write_secret("hub.env", f"JUPYTERHUB_CRYPT_KEY={secrets.token_hex(32)}")
    units.systemctl("systemctl start visahub-hub")
    units.wait_for("visahub-hub")
    wait_until(units.has_portal, "the portal answers through the proxy")
    assert kept(units) is None
    # Nobody is put out, what runs goes on, and an instance starts.
    assert landed(alice, PORTAL).status_code == 200
    assert visit(units) == before
    assert visit(units, "second")["path"].endswith("/second/api")
    units.api("DELETE", "/users/alice/servers/second")
    # With the next login it is kept again.
    units.login("alice").close()
    assert kept(units) == KEPT


def test_the_token_of_hub_and_proxy(units: Machine, alice: httpx.Client) -> None:
    before, old = visit(units), secret(units, "proxy.env")
    rotate(units, "The token of Hub and proxy")
    new = secret(units, "proxy.env")
    assert new != old

    def routes(token: str) -> int:
        url = f"http://127.0.0.1:{units.ports[1]}/api/routes"
        return httpx.get(url, headers={"Authorization": f"token {token}"}, timeout=20).status_code

    assert (routes(new), routes(old)) == (200, 403)
    units.wait_ready("alice", "steady")
    wait_until(lambda: httpx.get(f"{units.url}/user/alice/steady/api", timeout=20).status_code == 200, "its route")
    assert visit(units) == before
    assert landed(alice, PORTAL).status_code == 200


def test_the_token_of_the_portal(units: Machine, alice: httpx.Client) -> None:
    before, old = visit(units), secret(units, "portal.env")
    rotate(units, "The token of the portal")
    new = secret(units, "portal.env")
    assert new != old
    health = f"{units.url}{PORTAL}health"
    wait_until(lambda: httpx.get(health, timeout=20).json().get("round") == "done", "a round was done")
    assert units.api("GET", "/user", token=new).json()["name"] == "visahub"
    wait_until(lambda: units.api("GET", "/user", token=old).status_code == 403, "the old one is forgotten")
    assert visit(units) == before
    # The browser's session goes on by itself, and a new one begins.
    assert landed(alice, PORTAL).status_code == 200
    with closing(units.login("bob")) as other:
        assert "My instances" in landed(other, PORTAL).text


def test_the_crypt_key(units: Machine, alice: httpx.Client) -> None:
    before, old = visit(units), secret(units, "hub.env")
    row = encrypted(units)
    rotate(units, "JUPYTERHUB_CRYPT_KEY")
    new = secret(units, "hub.env")
    assert re.fullmatch("[0-9a-f]{64}", new)
    assert new != old
    assert encrypted(units) != row
    assert kept(units) == KEPT
    assert visit(units) == before
    assert landed(alice, "/hub/home").url.path != "/hub/login"


def encrypted(units: Machine) -> bytes:
    with closing(sqlite3.connect(units.state / "jupyterhub.sqlite", timeout=10)) as database:
        ((value,),) = database.execute("SELECT encrypted_auth_state FROM users WHERE name = 'alice'").fetchall()
    return bytes(value)


def test_tokens_that_people_have_made(units: Machine, alice: httpx.Client) -> None:
    before = visit(units)
    others = units.tokens.setdefault("bob", token_of(units, "bob"))
    mine = [units.token("alice") for _ in range(2)]
    rotate(units, "Tokens that people have made", NAME="alice")
    for token in (*mine, units.tokens.pop("alice")):
        assert units.api("GET", "/user", token=token).status_code == 403
    # Another person's, the running instance's and the browser's session are untouched.
    assert units.api("GET", "/user", token=others).status_code == 200
    assert units.api("GET", "/user", token=before["environ"]["JUPYTERHUB_API_TOKEN"]).status_code == 200
    assert visit(units) == before
    assert landed(alice, PORTAL).status_code == 200
    units.tokens["alice"] = units.token("alice")


def token_of(units: Machine, username: str) -> str:
    units.login(username).close()
    return units.token(username)


def test_sessions_of_one_person(units: Machine, alice: httpx.Client) -> None:
    before = visit(units)
    with closing(units.login("bob")) as bob:
        landed(bob, PORTAL)
        command = "visahub sessions end --user alice --config /etc/visahub/jupyterhub_config.py"
        said = units.do(command, JUPYTERHUB_API_TOKEN=units.admin_token)
        assert re.search(r"[1-9]\d* sessions ended", said), said
        sessions = [token for token in tokens(units, "alice") if token["oauth_client"] != "JupyterHub"]
        assert [token for token in sessions if not token["note"].startswith("Server at")] == []
        assert any(token["oauth_client"] != "JupyterHub" for token in tokens(units, "bob"))
    assert visit(units) == before
    assert units.api("GET", "/user", token=units.tokens["alice"]).status_code == 200


def tokens(units: Machine, username: str) -> list[dict[str, Any]]:
    return list(units.api("GET", f"/users/{username}/tokens").json()["api_tokens"])


def test_the_command_says_what_is_missing(units: Machine) -> None:
    command = ["visahub", "sessions", "end", "--config", str(units.config_file)]
    environ = {"PATH": f"{os.path.dirname(units.places['/opt/visahub/bin/python'])}:/usr/bin:/bin"}
    environ["PYTHONPATH"] = str(Path(__file__).parents[1])
    for token, sentence in (
        ("", "JUPYTERHUB_API_TOKEN"),
        ("wrong", "an administrator's"),
        (None, "is the name right?"),
    ):
        given = {"JUPYTERHUB_API_TOKEN": units.admin_token if token is None else token}
        more = ["--user", "nobody-of-that-name"] if token is None else []
        ended = subprocess.run([*command, *more], env=environ | given, capture_output=True, text=True, timeout=60)
        assert ended.returncode == 1
        assert sentence in ended.stderr
        assert "Traceback" not in ended.stderr


def test_tokens_of_instances(units: Machine) -> None:
    old = visit(units, "brief")["environ"]["JUPYTERHUB_API_TOKEN"]
    assert units.api("GET", "/user", token=old).status_code == 200
    rotate(units, "Tokens of instances", NAME="alice", SERVER="brief")
    wait_until(lambda: units.api("GET", "/user", token=old).status_code == 403, "its token has ended")
    new = visit(units, "brief")["environ"]["JUPYTERHUB_API_TOKEN"]
    assert new != old
    assert units.api("GET", "/user", token=new).status_code == 200
    units.api("DELETE", "/users/alice/servers/brief")


@pytest.mark.skipif(bool(postgres.why_not()), reason=postgres.why_not() or "none")
def test_the_password_of_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both databases on a server that wants a password; nothing is restarted, and people go on."""
    folder, old = passable(), secrets.token_hex(16)
    try:
        with postgres.Cluster() as cluster:
            names = [cluster.database() for _ in range(2)]
            close(cluster, old)
            file = folder / "pgpass"
            file.touch(0o600)
            file.write_text(f"*:*:*:visahub:{old}\n")
            monkeypatch.setenv("PGPASSFILE", str(file))
            ours, hubs = (f"postgresql+psycopg://visahub@/{name}?host={cluster.folder}" for name in names)
            store = Store(ours)
            store.upgrade()
            store.close()
            with machine(folder, database_url=ours, more=f"c.JupyterHub.db_url = {hubs!r}", pgpass=file) as units:
                check_a_new_password(units, cluster, names[0], old)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_a_new_password(units: Machine, cluster: postgres.Cluster, name: str, old: str) -> None:
    before = visit(units)
    (block,) = commands_of("operations.md", "The password of the database")
    units.do(block, PGHOST=str(cluster.folder), PGDATABASE="postgres")
    new = (units.folder / "etc" / "pgpass").read_text().strip().rpartition(":")[2]
    assert new != old
    assert not may_enter(cluster, name, old)
    assert may_enter(cluster, name, new)
    # Every connection is made anew, as after a restart of the server.
    with psycopg.connect(administrator(cluster)) as admin:
        ended = admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'visahub'")
        assert len(ended.fetchall()) > 1
    wait_until(units.has_portal, "the portal has its database again")
    wait_until(lambda: units.answers("visahub-hub"), "the Hub has its database again")
    assert visit(units) == before
    with closing(units.login("bob")) as bob:
        assert "My instances" in landed(bob, PORTAL).text


def close(cluster: postgres.Cluster, password: str) -> None:
    """Lets the role visahub in with a password only; the administrator comes without, from this machine."""
    with psycopg.connect(cluster.address("postgres"), autocommit=True) as first:
        first.execute("CREATE ROLE postgres SUPERUSER LOGIN")
        first.execute(f"ALTER ROLE visahub PASSWORD '{password}'")
        (cluster.folder / "data" / "pg_hba.conf").write_text("local all postgres trust\nlocal all all scram-sha-256\n")
        first.execute("SELECT pg_reload_conf()")
    # The units' users reach its socket; what it keeps is closed by itself.
    cluster.folder.chmod(0o755)
    wait_until(lambda: not may_enter(cluster, "postgres", "wrong"), "it wants a password")


def administrator(cluster: postgres.Cluster) -> str:
    return cluster.address("postgres").replace("user=visahub", "user=postgres")


def may_enter(cluster: postgres.Cluster, name: str, password: str) -> bool:
    try:
        psycopg.connect(cluster.address(name), password=password).close()
    except psycopg.OperationalError:
        return False
    return True
