"""A person is erased on a real Hub: name and mail are in no database and in no log afterwards."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.services.hub import running, wait_until

from .conftest import OTHERS, OWN, Asking

pytestmark = pytest.mark.services

NAME, MAIL = "Alice Example", "alice@example.org"


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asking]:
    with running(tmp_path_factory.mktemp("hub"), with_portal=True) as hub:
        made = Asking(hub)
        made.experiments(OWN, OTHERS)
        wait_until(hub.has_portal, "the portal answers")
        yield made
        made.store.close()


def privacy(asking: Asking, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "visahub.cli", "privacy", *words, "--config", str(asking.hub.config_file)]
    environ = {"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "/usr/bin:/bin"}
    return subprocess.run(command, env=environ, cwd=asking.hub.state, capture_output=True, text=True, timeout=120)


def dump(file: Path) -> str:
    with closing(sqlite3.connect(file, timeout=10)) as database:
        return "\n".join(database.iterdump())


@pytest.mark.timeout(300)
def test_a_person_is_told_and_erased(asking: Asking) -> None:
    server = asking.started(notes=f"notes of {NAME}")
    with closing(asking.hub.login("alice")) as session:
        session.follow_redirects = True
        assert MAIL in session.get("/services/visahub/me").text
        assert session.get("/services/visahub/api/me/data").json()["account"]["email"] == MAIL
    exported = privacy(asking, "export", "alice")
    assert exported.returncode == 0, exported.stderr
    told = json.loads(exported.stdout)
    assert (told["account"]["email"], told["account"]["display_name"]) == (MAIL, NAME)
    assert told["instances"][0]["request"]["notes"] == f"notes of {NAME}"

    refused = privacy(asking, "erase", "alice", "--really")
    assert refused.returncode != 0
    assert "still has 1 instance" in refused.stderr
    assert asking.row(server) is not None
    assert asking.hub.api("DELETE", f"/users/alice/servers/{server}", body={"remove": True}).status_code in {202, 204}
    wait_until(lambda: asking.row(server) is None, "it is deleted")

    dry = privacy(asking, "erase", "alice")
    assert dry.returncode == 0, dry.stderr
    assert "Nothing was changed" in dry.stdout
    assert asking.store.accounts.named("alice").email == MAIL
    done = privacy(asking, "erase", "alice", "--really")
    assert done.returncode == 0, done.stderr
    # What is left is told, and works as it is told.
    assert "curl -X DELETE" in done.stdout
    assert "/hub/api/users/alice" in done.stdout
    assert asking.hub.api("DELETE", "/users/alice").status_code == 204

    ours, hubs = dump(asking.hub.state / "visahub.sqlite"), dump(asking.hub.state / "jupyterhub.sqlite")
    logs = "\n".join(file.read_text(errors="replace") for file in asking.hub.state.glob("*.log"))
    for text in (NAME, MAIL):
        assert text not in ours
        assert text not in hubs
        assert text not in logs
    assert "alice" not in hubs
    assert asking.hub.api("GET", "/user", token=asking.token("alice")).status_code == 403
    tombstone = asking.store.accounts.named("alice")
    assert (tombstone.email, tombstone.display_name, tombstone.quota) == ("", "", 0)
    # The name is taken for ever: the same person, or somebody else of that name, is not let in by mistake.
    with pytest.raises(AssertionError, match="another account"):
        asking.hub.login("alice")


def test_an_unknown_account_is_told(asking: Asking) -> None:
    for words in (("export", "nobody"), ("erase", "nobody", "--really")):
        answer = privacy(asking, *words)
        assert answer.returncode != 0
        assert "no account 'nobody'" in answer.stderr
