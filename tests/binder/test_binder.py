"""Carries out the steps of a Binder in a fresh environment: install, postBuild, start; then looks as a visitor does."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.services, pytest.mark.timeout(900)]

# What repo2docker copies: the repository, without what git does not know.
NOT_COPIED = shutil.ignore_patterns(
    ".git", ".venv*", "node_modules", "build", "dist", "*.egg-info", "__pycache__", ".demo", ".*_cache", ".hypothesis"
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home that is the repository, as in repo2docker's images, with the steps of the build done."""
    home = tmp_path_factory.mktemp("binder") / "jovyan"
    shutil.copytree(CHECKOUT, home, ignore=NOT_COPIED)
    python = shutil.which("python3", path="/usr/bin") or "python3"
    subprocess.run([python, "-m", "venv", home.parent / "venv"], check=True, timeout=120)
    run(home, "pip", "install", "--quiet", "-r", "binder/requirements.txt")
    run(home, str(home / "binder" / "postBuild"))
    yield home


def environ(home: Path) -> dict[str, str]:
    """Gives what repo2docker sets, and what pip and npm need to find their registries here."""
    kept = ("PIP_", "npm_config_", "NPM_CONFIG_", "http", "HTTP", "SSL_", "REQUESTS_", "NODE_EXTRA", "no_proxy", "LANG")
    given = {name: value for name, value in os.environ.items() if name.startswith(kept)}
    caches = {"npm_config_cache": str(home.parent / "npm")}
    return {**given, **caches, "HOME": str(home), "PATH": f"{home.parent / 'venv' / 'bin'}:/usr/bin:/bin"}


def run(home: Path, *words: str) -> None:
    done = subprocess.run(words, cwd=home, env=environ(home), capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


@pytest.fixture(scope="module")
def address(home: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [str(home / "binder" / "start"), "jupyter", "lab", "--ip", "127.0.0.1", "--port", str(port), "--no-browser"]
    words += ["--IdentityProvider.token=visitor", *(["--allow-root"] if os.geteuid() == 0 else [])]
    with (home.parent / "lab.log").open("wb") as log:
        server = subprocess.Popen(words, cwd=home, env=environ(home), stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    get(f"{address}/api")
    yield address
    server.terminate()
    server.wait(30)
    run(home, "python", "-m", "visahub.singleuser.desktop", "stop")


def get(address: str) -> bytes:
    request = urllib.request.Request(address, headers={"Authorization": "token visitor"})
    for _ in range(120):
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return bytes(response.read())
        except urllib.error.HTTPError:
            raise
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"{address} does not answer")


def test_the_tile_of_the_desktop_is_there(address: str) -> None:
    offered = json.loads(get(f"{address}/server-proxy/servers-info"))["server_processes"]
    desktop = next(entry for entry in offered if entry["name"] == "desktop")
    assert desktop["launcher_entry"]["title"] == "Desktop"
    assert get(f"{address}/server-proxy/icon/desktop").startswith(b"<svg")


def test_the_desktop_answers(address: str) -> None:
    page = get(f"{address}/desktop/").decode()
    assert 'data-novnc="1' in page
    assert b"RFB" in get(f"{address}/desktop/novnc/1/core/rfb.js")
    status = json.loads(get(f"{address}/desktop/status"))
    assert status["state"] in {"starting", "running", "failed"}
    if shutil.which("Xvnc"):
        assert status["state"] != "failed"
    assert json.loads(get(f"{address}/visahub/activity"))["last_input"] is None


def test_the_start_page_opens_beside_sample_data(address: str, home: Path) -> None:
    opened = urllib.request.Request(f"{address}/?token=visitor")
    with urllib.request.urlopen(opened, timeout=60) as response:
        assert "/lab/tree/start-" in response.url
        assert "file-browser-path=%2Fexperiments%2F" in response.url
    notebooks = list(home.glob("start-*.ipynb"))
    assert len(notebooks) == 1
    folders = [folder for folder in (home / "experiments").iterdir() if any(folder.iterdir())]
    assert folders
    listed = json.loads((home / ".local" / "share" / "visahub" / "experiments.json").read_text())
    assert all(Path(row["link"]).is_dir() for row in listed)


def test_the_packages_of_the_desktop_are_all_named() -> None:
    from visahub.singleuser import privacy

    named = set((CHECKOUT / "binder" / "apt.txt").read_text().split())
    assert set(privacy._PROGRAMS.values()) <= named
