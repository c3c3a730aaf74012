"""The portal as a unit of its own beside a running Hub, with no more than what docs/operators.md names."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

from tests.services.hub import ROOT, RunningHub, wait_until


@contextlib.contextmanager
def own_portal(hub: RunningHub) -> Iterator[subprocess.Popen[bytes]]:
    """Runs it until the block ends; its log is `portal.log` in the Hub's folder."""
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "VISAHUB_PORTAL_TOKEN": hub.portal_token,
        "JUPYTERHUB_API_URL": hub.api_url,
    }
    command = [sys.executable, "-m", "visahub.cli", "portal", "--config", str(hub.config_file)]
    with (hub.state / "portal.log").open("ab") as log:
        process = subprocess.Popen(
            command, env=environ, cwd=hub.state, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        wait_until(hub.has_portal, "the portal answers", process)
        yield process
    finally:
        process.terminate()
        process.wait(20)
