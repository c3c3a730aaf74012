"""The portal as a unit of its own, as production runs it: it stays up while the Hub restarts."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests.services.hub import RunningHub, running, wait_until

pytestmark = [pytest.mark.services, pytest.mark.slow]

PORTAL = "/services/visahub/"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[RunningHub]:
    with running(tmp_path) as one:
        yield one


@pytest.fixture
def portal(hub: RunningHub) -> Iterator[subprocess.Popen[bytes]]:
    """A process with what docs/operators.md names, and nothing of the Hub's environment."""
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "VISAHUB_PORTAL_TOKEN": hub.portal_token,
        "JUPYTERHUB_API_URL": hub.api_url,
    }
    command = [sys.executable, "-m", "visahub.cli", "portal", "--config", str(hub.config_file)]
    process = subprocess.Popen(command, env=environ, cwd=hub.state, stdin=subprocess.DEVNULL)
    wait_until(hub.has_portal, "the portal answers", process)
    yield process
    process.terminate()
    assert process.wait(20) == 0


def test_it_serves_pages_and_outlives_the_hub(hub: RunningHub, portal: subprocess.Popen[bytes]) -> None:
    with closing(hub.login("alice")) as session:
        session.follow_redirects = True
        assert "My instances" in session.get(PORTAL).text
        hub.kill()
        assert portal.poll() is None
        direct = httpx.get(f"http://127.0.0.1:{hub.ports[3]}{PORTAL}health", timeout=10)
        assert direct.status_code == 200, direct.text
        hub.start()
        wait_until(hub.has_portal, "its route is back")
        assert "My instances" in session.get(PORTAL).text
    assert portal.poll() is None


def test_without_its_token_it_says_what_is_missing(hub: RunningHub) -> None:
    command = [sys.executable, "-m", "visahub.cli", "portal", "--config", str(hub.config_file)]
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[2])}
    ended = subprocess.run(command, env=environ, cwd=hub.state, capture_output=True, text=True, timeout=60)
    assert ended.returncode != 0
    assert "VISAHUB_PORTAL_TOKEN" in ended.stderr
