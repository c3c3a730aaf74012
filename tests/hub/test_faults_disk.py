"""A database on a full disk: nothing starts, what runs is untouched, and everything heals when there is room again."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest

from tests.services.hub import running, wait_until
from visahub.model.instance import Phase, new_instance_id

from .conftest import OTHERS, OWN, Asking, choices

pytestmark = [pytest.mark.services, pytest.mark.slow]

PORTAL = "/services/visahub/"
LINES = """
c.JupyterHub.db_url = "sqlite:///{hubs}/jupyterhub.sqlite"
c.Visahub.database_url = "sqlite:///{ours}/visahub.sqlite"
"""


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of 3 MB."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=3m,mode=700", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def full(folder: Path) -> Iterator[None]:
    """Nothing more can be written."""
    junk = folder / "junk"
    with junk.open("wb", buffering=0) as file:
        for size in (2**16, 2**12, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
    try:
        yield
    finally:
        junk.unlink()


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asking]:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a file system")
    state = tmp_path_factory.mktemp("hub")
    with small_disk(state / "ours") as ours, small_disk(state / "hubs") as hubs:
        lines = LINES.format(ours=ours, hubs=hubs)
        with running(state, with_portal=True, more=lines) as hub:
            made = Asking(hub, f"sqlite:///{ours}/visahub.sqlite")
            made.experiments(OWN, OTHERS)
            # So small a disk is never called healthy; that the portal says so is enough here.
            health = f"{hub.url}{PORTAL}health"
            wait_until(lambda: "nearly full" in httpx.get(health, timeout=10).text, "the portal answers")
            yield made
            made.store.close()


def enter(asking: Asking, username: str) -> httpx.Client:
    session = asking.hub.login(username)
    session.follow_redirects = True
    assert "My instances" in session.get(PORTAL).text
    session.follow_redirects = False
    return session


def test_f7_own_database_on_a_full_disk(asking: Asking) -> None:
    server = asking.started()
    pid = asking.visit(server)["pid"]
    with closing(enter(asking, "alice")) as session:
        with full(asking.hub.state / "ours"):
            for _ in range(3):
                refused = asking.start(new_instance_id(), choices())
                assert refused.status_code == 503, refused.text
                assert "full" in refused.json()["message"]
                assert refused.headers["Retry-After"]
            assert session.get(PORTAL).status_code == 200
            assert session.get("/hub/home").status_code == 200
            health = httpx.get(f"{asking.hub.url}{PORTAL}health", timeout=10)
            assert health.status_code == 503
            assert "full" in health.json()["message"]
            assert asking.visit(server)["pid"] == pid
            assert [row.server_name for row in asking.store.instances.live()] == [server]
        assert asking.row(server).phase is Phase.READY
        assert session.get(PORTAL).status_code == 200
    # It heals without anybody's help.
    asking.started()
    assert asking.visit(server)["pid"] == pid


def test_f7_hubs_database_on_a_full_disk(asking: Asking) -> None:
    server = asking.started()
    pid = asking.visit(server)["pid"]
    token = asking.token("alice")
    with closing(enter(asking, "alice")) as session:
        with full(asking.hub.state / "hubs"):
            for _ in range(3):
                refused = asking.start(new_instance_id(), choices())
                assert refused.status_code == 503, refused.text
                assert "does not answer" in refused.json()["message"]
                assert asking.hub.api("GET", "/user", token=token).status_code in {200, 503}
                assert session.get("/hub/home").status_code in {200, 503}
                assert session.get(PORTAL).status_code in {200, 503}
            assert asking.visit(server)["pid"] == pid
            # Nothing was begun that the Hub could not remember.
            assert [row.server_name for row in asking.store.instances.live()] == [server]
        wait_until(lambda: session.get("/hub/home").status_code == 200, "the Hub answers", seconds=10)
        assert asking.hub.api("GET", "/user", token=token).status_code == 200
        assert "My instances" in session.get(PORTAL).text
    asking.started()
    assert asking.visit(server)["pid"] == pid
