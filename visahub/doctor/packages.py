"""The packages of this environment: no older than their last security fix."""

from __future__ import annotations

from importlib import metadata

from .findings import Answer, Check, Grade, Site

# The lowest versions without a known hole that matters here.
FLOORS = {
    "jupyterhub": "6.1.1",
    "jupyter_server": "2.20",
    "jupyterlab": "4.5.7",
    "jupyter-server-proxy": "4.2",
    "jupyter-remote-desktop-proxy": "3.0.1",
    "jupyter-scheduler": "2.5.2",
    "oauthenticator": "17.4",
}


def _versions(site: Site) -> Answer:
    old = []
    for name, floor in FLOORS.items():
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        if _numbers(version) < _numbers(floor):
            old.append(f"{name} {version} (needs {floor})")
    if old:
        return Grade.PROBLEM, f"Versions with known holes: {', '.join(old)}. Run: pip install --upgrade"
    return Grade.OK, "No package is older than its last security fix."


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:3] if part.isdigit())


CHECKS: tuple[Check, ...] = (_versions,)
