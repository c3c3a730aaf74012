"""A visahub that runs on a laptop: `jupyterhub` in this directory. Instances are processes of this machine, experiments
are samples, and the logins are invented. For a facility's own Hub see docs/operators.md.

What it keeps lies in one folder, `VISAHUB_STATE`; it listens on 127.0.0.1, port `VISAHUB_PORT` (8000).
"""

import hashlib
import json
import os
import socket
from pathlib import Path

from visahub import build
from visahub.hub import configure
from visahub.hub.authenticator import passwords

c = get_config()  # noqa: F821 - JupyterHub provides it

here = Path(__file__).resolve().parent
is_checkout = (here / "setup.cfg").exists()
default_state = here / ".demo" if is_checkout else Path.home() / ".local" / "share" / "visahub"
state = Path(os.environ.setdefault("VISAHUB_STATE", str(default_state))).resolve()
port = int(os.environ.setdefault("VISAHUB_PORT", "8000"))
# The accounts pass through the folder to their data; what the Hub keeps there is closed to them.
for folder, mode in ((state, 0o711), (state / "hub", 0o700)):
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(mode)


def internal_ports(file: Path) -> list[int]:
    """Gives the three ports between the Hub's own processes: free ones at the first start, then always the same.

    Running instances know the Hub's address: it must be the same after a restart.
    """
    if not file.exists():
        sockets = [socket.socket() for _ in range(3)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        file.write_text(json.dumps([each.getsockname()[1] for each in sockets]))
        for each in sockets:
            each.close()
    return json.loads(file.read_text())


hub_port, proxy_port, portal_port = internal_ports(state / "hub" / "ports.json")

# The Hub: reachable from this machine only, everything it keeps in the state folder.
c.JupyterHub.bind_url = f"http://127.0.0.1:{port}"
c.JupyterHub.hub_bind_url = f"http://127.0.0.1:{hub_port}"
c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{proxy_port}"
c.ConfigurableHTTPProxy.pid_file = str(state / "hub" / "proxy.pid")
c.JupyterHub.db_url = f"sqlite:///{state / 'hub' / 'jupyterhub.sqlite'}"
c.JupyterHub.cookie_secret_file = str(state / "hub" / "cookie_secret")

# The logins: sample accounts. The two passwords are made at the first start.
secret = passwords(state / "passwords.json")
c.JupyterHub.authenticator_class = "visahub.hub.authenticator.SampleAuthenticator"
c.SampleAuthenticator.user_password = secret["user"]
c.SampleAuthenticator.admin_password = secret["admin"]

# visahub itself.
c.Visahub.name = "Photon Science Data Analysis"
# Two demonstrations on one machine, in two folders, keep their hands off each other's instances.
c.Visahub.deployment = f"demo-{hashlib.sha256(str(state).encode()).hexdigest()[:8]}"
c.Visahub.database_url = f"sqlite:///{state / 'visahub.sqlite'}"
c.Visahub.portal_url = f"http://127.0.0.1:{portal_port}"
c.Visahub.start_seconds = 120
c.Visahub.sources = ["visahub.sources.files.FilesSource"]
c.FilesSource.path = str(build.share("samples", "experiments.json"))
c.FilesSource.data_root = str(state / "data")
c.LocalBackend.data_dir = str(state)
c.Visahub.environments = [
    {
        "id": "data-analysis",
        "name": "Data analysis",
        "version": "2026.3",
        "description": "JupyterLab and a desktop with the Python of this machine.",
        "icon": "chart-line",
        "images": {"local": "this"},
    },
    {
        "id": "notebooks",
        "name": "Notebooks only",
        "version": "2026.3",
        "description": "JupyterLab without a desktop: starts fast, needs little memory.",
        "icon": "book",
        "has_desktop": False,
        "images": {"local": "this"},
    },
]
c.Visahub.hardware = [
    {
        "id": "small",
        "name": "Small",
        "backend": "local",
        "place": "This machine",
        "cores": 1,
        "memory_mb": 2048,
        "description": "For looking at data and small notebooks.",
    },
    {
        "id": "medium",
        "name": "Medium",
        "backend": "local",
        "place": "This machine",
        "cores": 2,
        "memory_mb": 4096,
        "description": "For most analyses.",
    },
    {
        "id": "large",
        "name": "Large",
        "backend": "local",
        "place": "This machine",
        "cores": 4,
        "memory_mb": 8192,
        "description": "For reconstructions.",
        "restriction": {
            "roles": ["instrument-scientist", "staff"],
            "instruments": ["P03"],
            "sentence": "Only for experiments at P03, staff and instrument scientists. Ask your local contact.",
        },
    },
]

configure(c)
