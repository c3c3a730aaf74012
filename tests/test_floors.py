"""Reads the imports of every file of visahub and fails on a wrong one: `docs/architecture.md` says the rules."""

from __future__ import annotations

import ast
import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "visahub"


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    """CPython before 3.11.5 fails to parse when its collector runs meanwhile (python/cpython#106905)."""
    gc.disable()
    yield
    gc.enable()


# Which rooms each room may import, besides itself. A room that is not here is a mistake of its own.
_BELOW = {"model", "store", "backends", "sources", "federations", "notices", "flows"}
ROOMS: dict[str, set[str]] = {
    "model": set(),
    "store": {"model"},
    "backends": {"model"},
    "sources": {"model"},
    "federations": {"model"},
    "notices": {"model"},
    "flows": {"model", "store", "backends", "sources", "federations", "notices"},
    "build": {"model", "store", "backends", "sources", "federations", "notices", "flows"},
    "front": set(),
    "addresses": set(),
    "proxy": {"build", "addresses"},
    "rotation": {"addresses"},
    "hub": {"build", "front", "proxy"} | _BELOW,
    "portal": {"build", "front", "addresses"} | _BELOW,
    "doctor": {"build", "addresses", "proxy"} | _BELOW,
    "demo": {"model", "flows", "build", "hub"},
    "copies": {"build"} | _BELOW,
    "personal": {"model", "build", "store", "flows"},
    "cli": {"model", "build", "portal", "doctor", "demo", "personal", "proxy", "rotation", "copies"},
    "singleuser": {"model"},
    "machine": {"model"},
    "testing": {"model", "store", "backends", "sources", "federations", "notices", "flows"},
}
# A foreign package has one home, or a few with a reason in docs/architecture.md.
HOMES: dict[str, set[str]] = {
    "sqlalchemy": {"store"},
    "alembic": {"store"},
    "openstack": {"backends/openstack.py"},
    "batchspawner": {"backends/slurm.py", "hub/port.py"},
    "oauthenticator": {"hub/authenticator.py"},
    "jupyterhub": {"hub", "portal", "singleuser/launcher.py", "singleuser/extension.py", "doctor/names.py"},
    "jupyter_server": {"singleuser"},
    "tornado": {"hub", "portal", "singleuser", "front"},
    "httpx": {"sources", "backends", "portal"},
    "traitlets": {
        "store",
        "backends",
        "sources",
        "federations",
        "notices",
        "build",
        "addresses",
        "proxy",
        "rotation",
        "hub",
        "portal",
        "doctor",
        "copies",
        "testing",
    },
    "prometheus_client": {"portal", "hub"},
    "jinja2": {"portal"},
    "click": {"cli", "doctor", "copies"},
    "aiohttp": {"hub/settings.py"},
}
# Floor 1 has the standard library and nothing else.
PURE = {"model"}


def imports(source: str, module: tuple[str, ...]) -> Iterator[str]:
    """Gives the full names of all modules that a source imports; `module` is its own name in parts."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = list(module[: len(module) - node.level]) if node.level else []
            start = [*base, *(node.module or "").split(".")] if node.module else base
            yield ".".join(start)
            if (node.level and not node.module) or start == ["visahub"]:
                yield from (".".join([*start, alias.name]) for alias in node.names)


def wrong_imports(path: str, source: str) -> list[str]:
    """Gives a sentence for each import of `visahub/<path>` that the house forbids."""
    parts = path.removesuffix(".py").split("/")
    room = parts[0]
    if room == "__init__":
        return []
    if room not in ROOMS:
        return [f"{path} is in no room of the house"]
    found = []
    for name in imports(source, ("visahub", *parts)):
        top, _, rest = name.partition(".")
        if top == "visahub":
            other = rest.split(".")[0]
            if other and other not in {room, "__version__"} and other not in ROOMS[room]:
                found.append(f"{path} imports visahub.{other}: {room} may not")
        elif room in PURE and top not in _standard():
            found.append(f"{path} imports {top}: floor 1 has the standard library only")
        elif top in HOMES and not any(
            path == home or path.startswith((f"{home}/", f"{home}.py")) for home in HOMES[top]
        ):
            found.append(f"{path} imports {top}, whose home is {', '.join(sorted(HOMES[top]))}")
    return found


def _standard() -> frozenset[str]:
    import sys

    return sys.stdlib_module_names


def test_every_import_is_allowed() -> None:
    files = sorted(PACKAGE.rglob("*.py"))
    assert len(files) > 40
    wrong = [
        sentence
        for file in files
        if "migrations" not in file.parts
        for sentence in wrong_imports(file.relative_to(PACKAGE).as_posix(), file.read_text())
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("model/account.py", "import httpx"),
        ("model/account.py", "from ..store.database import Store"),
        ("store/search.py", "from ..flows import launch"),
        ("store/search.py", "from ..backends.base import Backend"),
        ("backends/local.py", "from ..sources.base import Source"),
        ("backends/local.py", "import sqlalchemy.orm"),
        ("flows/launch.py", "from ..hub.spawner import VisaSpawner"),
        ("flows/launch.py", "from visahub.portal import app"),
        ("hub/spawner.py", "from ..portal import app"),
        ("hub/spawner.py", "import visahub.portal.app"),
        ("portal/app.py", "from .. import hub"),
        ("singleuser/gate.py", "from ..store.database import ask"),
        ("singleuser/gate.py", "import jupyterhub"),
        ("machine/agent.py", "from ..flows import end"),
        ("utils/strings.py", "import re"),
    ],
)
def test_a_wrong_import_is_found(path: str, source: str) -> None:
    assert wrong_imports(path, source)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("model/policy.py", "from .account import Account\nimport datetime"),
        ("store/search.py", "import sqlalchemy\nfrom ..model.errors import Refused"),
        ("flows/launch.py", "from ..backends.base import Backend\nfrom . import end"),
        ("hub/spawner.py", "from .. import build\nimport jupyterhub.spawner"),
        ("singleuser/launcher.py", "import jupyterhub.singleuser\nfrom . import start"),
    ],
)
def test_a_right_import_passes(path: str, source: str) -> None:
    assert wrong_imports(path, source) == []
