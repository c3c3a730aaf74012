"""Yesterday's copy of a database is put back: what runs goes on and is reported, nothing is ended unasked."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from tests.services.hub import running, wait_until
from visahub import cli
from visahub.model.instance import Phase

from .conftest import OTHERS, OWN, Asking

pytestmark = [pytest.mark.services, pytest.mark.slow]


@pytest.fixture
def asking(tmp_path: Path) -> Iterator[Asking]:
    with running(tmp_path) as hub:
        made = Asking(hub)
        made.experiments(OWN, OTHERS)
        yield made
        made.store.close()


class Copies:
    """Copies of both databases from a moment, to be put back while the Hub is stopped."""

    def __init__(self, asking: Asking) -> None:
        self.asking = asking
        self.state = asking.hub.state
        for name in ("visahub.sqlite", "jupyterhub.sqlite"):
            with (
                closing(sqlite3.connect(self.state / name)) as old,
                closing(sqlite3.connect(self.state / f"{name}.yesterday")) as new,
            ):
                old.backup(new)

    def restore(self, *names: str) -> None:
        self.asking.hub.kill()
        self.asking.store.close()
        for name in names:
            for end in ("-wal", "-shm", "-journal"):
                (self.state / f"{name}{end}").unlink(missing_ok=True)
            shutil.copy(self.state / f"{name}.yesterday", self.state / name)
        # What was given for a user of today is unknown now.
        self.asking.tokens.clear()
        self.asking.hub.start()


def strays(asking: Asking, *arguments: str) -> Any:
    return CliRunner().invoke(cli.main, ["strays", *arguments, "--config", str(asking.hub.config_file)])


def with_session(asking: Asking, server: str, username: str) -> int:
    """Tells what the Hub answers to the instance's own token."""
    token = asking.visit(server, username)["environ"]["JUPYTERHUB_API_TOKEN"]
    return asking.hub.api("GET", "/user", token=token).status_code


def test_f23_older_copy_of_the_hubs_database(asking: Asking) -> None:
    asking.token("alice")
    yesterday = asking.started()
    copies = Copies(asking)
    today = asking.started()
    # Somebody who did not even have a login yesterday.
    bobs = asking.started("bob", experiments=["others"])
    before = {
        server: asking.visit(server, user) for server, user in ((yesterday, "alice"), (today, "alice"), (bobs, "bob"))
    }
    copies.restore("jupyterhub.sqlite")
    done = asking.hub.round()
    assert done["taken_up"] == 2
    assert done["unknown"] == []
    assert asking.hub.round()["taken_up"] == 0
    for server, username in ((yesterday, "alice"), (today, "alice"), (bobs, "bob")):
        asking.hub.wait_ready(username, server)
        # The very same process, by its route, with a token that is good.
        assert asking.visit(server, username)["pid"] == before[server]["pid"]
        assert with_session(asking, server, username) == 200
        assert asking.row(server, username).phase is Phase.READY
    # People can be let in: the login of the instance is known with its secret and its scope.
    scopes = asking.hub_query("SELECT allowed_scopes FROM oauth_clients WHERE identifier LIKE ?", f"%{today}")
    assert f"access:servers!server=alice/{today}" in scopes[0][0]
    # And it ends in order.
    assert asking.ask("DELETE", today).status_code in {202, 204}
    wait_until(lambda: asking.row(today).phase is Phase.STOPPED, "it has stopped")
    assert asking.hub.round()["taken_up"] == 0


def test_f23_older_copy_of_ours(asking: Asking) -> None:
    asking.token("alice")
    yesterday = asking.started()
    copies = Copies(asking)
    today = asking.started()
    attempt = asking.row(today).attempt
    pid = asking.visit(today)["pid"]
    copies.restore("visahub.sqlite")
    for _ in range(3):
        done = asking.hub.round()
        assert done["unknown"] == [attempt]
        assert done["dropped"] == 0
    # It is reported and left alone, and its owner goes on working.
    assert asking.row(today) is None
    asking.hub.wait_ready("alice", today)
    assert asking.visit(today)["pid"] == pid
    assert asking.row(yesterday).phase is Phase.READY
    listed = strays(asking, "list")
    assert listed.exit_code == 1, listed.output
    assert attempt in listed.output and today in listed.output
    # Nothing happens by a command that does not say so.
    assert "--really" in strays(asking, "adopt", attempt, "--owner", "alice").output
    assert asking.row(today) is None
    assert "--really" in strays(asking, "end", attempt).output
    assert asking.visit(today)["pid"] == pid
    adopted = strays(asking, "adopt", attempt, "--owner", "alice", "--really")
    assert adopted.exit_code == 0, adopted.output
    assert asking.row(today).phase is Phase.READY
    assert asking.hub.round()["unknown"] == []
    assert strays(asking, "list").exit_code == 0
    assert asking.visit(today)["pid"] == pid
    assert asking.ask("DELETE", today).status_code in {202, 204}
    wait_until(lambda: asking.row(today).phase is Phase.STOPPED, "it has stopped")


def test_f23_older_copy_of_both(asking: Asking) -> None:
    asking.token("alice")
    copies = Copies(asking)
    today = asking.started()
    attempt = asking.row(today).attempt
    pids = asking.hub.instance_pids()
    copies.restore("visahub.sqlite", "jupyterhub.sqlite")
    for _ in range(3):
        assert asking.hub.round()["unknown"] == [attempt]
    assert asking.hub.instance_pids() == pids
    # Nobody knows its token any more, so all that is left is to end it.
    refused = strays(asking, "end", "nonesuch", "--really")
    assert refused.exit_code != 0
    assert "visahub strays list" in refused.output
    ended = strays(asking, "end", attempt, "--really")
    assert ended.exit_code == 0, ended.output
    wait_until(lambda: not asking.hub.instance_pids(), "it has ended")
    assert asking.hub.round()["unknown"] == []


def test_f23_stop_of_what_only_the_hub_knows(asking: Asking) -> None:
    asking.token("alice")
    copies = Copies(asking)
    today = asking.started()
    copies.restore("visahub.sqlite")
    asking.hub.wait_ready("alice", today)
    asking.token("alice")
    assert asking.ask("DELETE", today).status_code in {202, 204}
    wait_until(lambda: not asking.hub.instance_pids(), "it has ended, since its owner asked for it")
    assert httpx.get(f"{asking.hub.url}/user/alice/{today}/api", timeout=10).status_code != 200
