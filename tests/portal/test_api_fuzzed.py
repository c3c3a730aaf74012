"""schemathesis over the portal's API, behind a real Hub, as a user with a token: every check it has."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from tests.services.hub import running, wait_until
from visahub.model.experiment import Experiment
from visahub.portal.openapi import DESCRIPTION
from visahub.store.database import Store

pytestmark = [pytest.mark.services, pytest.mark.timeout(300)]

EXAMPLES = 12
OPERATIONS = sum(len(methods.keys() - {"parameters"}) for methods in DESCRIPTION["paths"].values())
CONFIG = Path(__file__).with_name("schemathesis.toml")


def test_the_api_keeps_its_description(tmp_path: Path) -> None:
    """Zero failures of all checks: no 5xx, only described answers, wrong data refused, no way in without a token."""
    with running(tmp_path, with_portal=True) as hub:
        store = Store(f"sqlite:///{hub.state / 'visahub.sqlite'}")
        store.experiments.replace_source("tests", [_open("xfel/1"), _open("xfel/2")], datetime.now(UTC))
        store.close()
        hub.login("alice").close()
        headers = {"Authorization": f"token {hub.token('alice')}"}
        wait_until(hub.has_portal, "the portal answers")
        portal = f"{hub.url}/services/visahub"
        described = httpx.get(f"{portal}/api/openapi.json", headers=headers, timeout=60)
        assert described.status_code == 200, described.text
        # Real experiments, so that some of the requests start real instances.
        schema = described.json()
        start = schema["components"]["schemas"]["StartRequest"]
        start["properties"]["experiments"] |= {"items": {"enum": ["xfel/1", "xfel/2"]}, "minItems": 1}
        start["properties"]["environment"]["enum"] = ["tiny"]
        start["required"].append("experiments")
        file = tmp_path / "openapi.json"
        file.write_text(json.dumps(schema))
        command = [str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(CONFIG), "run", str(file)]
        command += ["--url", portal, "--header", f"Authorization: {headers['Authorization']}", "--checks", "all"]
        command += ["--max-examples", str(EXAMPLES), "--no-color", "--seed", "5"]
        # On a busy machine making the data is slow, which says nothing about the API.
        command += ["--suppress-health-check", "all"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
        assert f"{OPERATIONS} selected / {OPERATIONS} total" in done.stdout, done.stdout
        log = hub.log.read_text(errors="replace")
        assert "Uncaught exception" not in log
        assert "reference " not in log


def _open(key: str) -> Experiment:
    day = datetime(2020, 1, 1, tzinfo=UTC).date()
    return Experiment(id=key, proposal="p1", title="Open", instrument="P03", start=day, end=day, public_at=day)
