"""No part with a known hole: what is installed, what setup.cfg allows and what is pinned is not below the floors.

A floor is the first version without the vulnerabilities that are known of it; raise it with each advisory.
"""

from __future__ import annotations

import configparser
import json
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
FLOORS = {
    # GHSA-69wv-m5fw-2fhp, CVE-2026-54338, -40864, -33709, CVE-2024-41942, -28233
    "jupyterhub": "6.1.1",
    # CVE-2026-44727, -40934, -40110, -35397
    "jupyter_server": "2.20",
    # CVE-2026-40171, GHSA-37w4-hwhx-4rc4
    "jupyterlab": "4.5.7",
    # CVE-2024-35225, -28179
    "jupyter-server-proxy": "4.2",
    # CVE-2025-32428
    "jupyter-remote-desktop-proxy": "3.0.1",
    # CVE-2026-33175 and five before it
    "oauthenticator": "17.4",
    # CVE-2024-28188
    "jupyter-scheduler": "2.5.2",
    # CVE-2026-34052
    "jupyterhub-ltiauthenticator": "1.6.3",
    # CVE-2020-15110, CVE-2020-26261, CVE-2021-41194
    "jupyterhub-kubespawner": "0.12",
    "jupyterhub-systemdspawner": "0.15",
    "jupyterhub-firstuseauthenticator": "1.0",
}
# CVE-2017-18635
NODE_FLOORS = {"@novnc/novnc": "0.6.2"}


def requirements() -> list[Requirement]:
    """Reads all that setup.cfg asks for, extras included."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    texts = [config["options"]["install_requires"], *config["options.extras_require"].values()]
    lines = [line.strip() for text in texts for line in text.splitlines()]
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def too_low(found: str, floor: str) -> bool:
    return Version(found) < Version(floor)


def test_installed_versions() -> None:
    low, seen = {}, []
    for name, floor in FLOORS.items():
        try:
            installed = version(name)
        except PackageNotFoundError:
            continue
        seen.append(name)
        if too_low(installed, floor):
            low[name] = installed
    assert low == {}
    assert {"jupyterhub", "jupyter_server", "jupyterlab", "jupyter-server-proxy", "oauthenticator"} <= set(seen)


def test_setup_cfg_allows_nothing_lower() -> None:
    floors = {canonicalize_name(name): floor for name, floor in FLOORS.items()}
    seen = set()
    for requirement in requirements():
        floor = floors.get(canonicalize_name(requirement.name))
        if floor is None:
            continue
        seen.add(canonicalize_name(requirement.name))
        bounds = [one.version for one in requirement.specifier if one.operator in {">=", "==", "~="}]
        assert bounds, f"{requirement} has no lower bound"
        assert not too_low(max(bounds, key=Version), floor), f"{requirement} is below {floor}"
    assert {"jupyterhub", "jupyterlab", "jupyter-server", "jupyter-server-proxy", "oauthenticator"} <= seen


def test_pinned_versions() -> None:
    floors = {canonicalize_name(name): floor for name, floor in FLOORS.items()}
    pinned = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if re.match(r"[\w.-]+==", line)
    )
    pinned = {canonicalize_name(name): number for name, number in pinned.items()}
    low = {name: pinned[name] for name, floor in floors.items() if name in pinned and too_low(pinned[name], floor)}
    assert low == {}


def test_versions_of_node_packages() -> None:
    asked = json.loads((ROOT / "share" / "package.json").read_text())["dependencies"]
    for name, floor in NODE_FLOORS.items():
        assert not too_low(asked[name].lstrip("^~>="), floor), name


@pytest.mark.parametrize(("found", "floor"), [("6.1.0", "6.1.1"), ("2.9", "2.20"), ("17.4rc1", "17.4")])
def test_lower_is_seen(found: str, floor: str) -> None:
    assert too_low(found, floor)
    assert not too_low(floor, floor)
