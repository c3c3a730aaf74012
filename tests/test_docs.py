"""The documentation is tested: the README's example runs, every setting has help, every module says what it is."""

from __future__ import annotations

import ast
import gc
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from traitlets.config import Config

from visahub import build, front
from visahub.hub import authenticator, configure, limits
from visahub.hub.spawner import VisaSpawner
from visahub.model import request
from visahub.portal import app as portal_app
from visahub.portal import base as portal_base
from visahub.portal import events
from visahub.portal.limits import Buckets
from visahub.singleuser import gate, rfb

ROOT = Path(__file__).parents[1]
MODULES = [file for file in sorted((ROOT / "visahub").rglob("*.py")) if "versions" not in file.parts]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    """CPython before 3.11.5 fails to parse when its collector runs meanwhile (python/cpython#106905)."""
    gc.disable()
    yield
    gc.enable()


def test_the_readmes_example_is_a_working_configuration(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", readme, re.S)
    example = example.replace("/var/lib/visahub", str(tmp_path)).replace("/etc/visahub", str(tmp_path))
    file = tmp_path / "jupyterhub_config.py"
    file.write_text(f"c = get_config()\n{example}")
    config = build.read(file)
    parts = build.build(config)
    assert [size.id for size in parts.menu.hardware] == ["small"]
    assert [source.path for source in parts.sources] == [f"{tmp_path}/experiments.json"]
    assert config.JupyterHub.spawner_class == "visahub.hub.spawner.VisaSpawner"
    assert config.JupyterHub.cleanup_servers is False
    assert [service["name"] for service in config.JupyterHub.services.get_value([])] == ["visahub"]


@pytest.mark.parametrize("file", MODULES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_module_says_what_it_is(file: Path) -> None:
    assert ast.get_docstring(ast.parse(file.read_text()))


def test_every_setting_has_help() -> None:
    settings = [
        (kind.__name__, name, trait)
        for kind in build.configurables()
        for name, trait in kind.class_own_traits(config=True).items()
    ]
    assert len(settings) > 15
    assert [f"{kind}.{name}" for kind, name, trait in settings if len(trait.help) < 20] == []


def test_configure_keeps_what_the_facility_has_set() -> None:
    c = Config()
    c.JupyterHub.concurrent_spawn_limit = 7
    c.JupyterHub.tornado_settings = {"slow_spawn_timeout": 3}
    configure(c)
    assert c.JupyterHub.concurrent_spawn_limit == 7
    assert c.JupyterHub.tornado_settings["slow_spawn_timeout"] == 3
    assert c.JupyterHub.allow_named_servers is True


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_limits_are_those_of_the_code() -> None:
    page = (ROOT / "docs" / "limits.md").read_text()
    rows = [row for row in page.splitlines() if row.startswith("| ")]
    for what, *numbers in (
        ("body of a request to the Hub", limits.MAX_BODY // 1024),
        ("body of a request to the portal", portal_app.MAX_BODY // 1024, portal_base.MAX_ARGUMENTS),
        ("time for a body", front.SETTINGS["body_timeout"], front.SETTINGS["idle_connection_timeout"]),
        ("requests that are not complete", front.MOST_WAITING),
        ("choices of an instance", request.MAX_OPTIONS, request.MAX_EXPERIMENTS),
        ("name of an instance; notes", request.MAX_NAME, request.MAX_NOTES),
        ("starts at once", VisaSpawner.starts_at_once.default_value),
        ("connections to one desktop", gate.MAX_CONNECTIONS, f"{gate.SILENT_SECONDS:.0f} s"),
        ("text of one clipboard", rfb.MAX_CUT_TEXT // 1024, rfb.MAX_SIDE),
        ("tokens of one account", limits.MOST_TOKENS, limits.LONGEST_NOTE),
        ("failed logins in 5 minutes", authenticator.Throttle.most_by_name, authenticator.Throttle.most_by_address),
        ("live pages of one account", events.MOST_STREAMS, int(events.LIFETIME_SECONDS)),
    ):
        (row,) = [row for row in rows if what in row]
        assert not [number for number in numbers if not re.search(rf"\b{number}\b", row)], row
    c = Config()
    configure(c)
    assert f"| {c.JupyterHub.named_server_limit_per_user} |" in page
    assert c.JupyterHub.token_expires_in_max_seconds == 90 * 24 * 3600
    assert "30 at once, 5 a second" in page
    assert inspect.signature(Buckets).parameters["burst"].default == 30
    assert inspect.signature(Buckets).parameters["per_second"].default == 5


def test_templates_never_trust_text() -> None:
    templates = sorted((ROOT / "share" / "templates").rglob("*.html"))
    assert len(templates) > 15
    assert [str(file) for file in templates if re.search(r"\|\s*safe\b", file.read_text())] == []
