"""What `configure` sets, and what it leaves as the facility has it."""

from __future__ import annotations

from typing import Any

import pytest
from traitlets import TraitError
from traitlets.config import Config

from visahub.hub import configure


def configured(**jupyterhub: Any) -> Config:
    c = Config()
    for name, value in jupyterhub.items():
        c.JupyterHub[name] = value
    configure(c)
    return c


def test_recommended_settings() -> None:
    c = configured()
    assert c.JupyterHub.spawner_class == "visahub.hub.spawner.VisaSpawner"
    assert c.JupyterHub.allow_named_servers is True
    assert c.JupyterHub.cleanup_servers is False
    assert c.Spawner.consecutive_failure_limit == 0
    assert c.Spawner.env_keep == []
    assert c.JupyterHubHTTPClient.session_options["timeout"].total <= 60
    assert "--proxy-timeout" in c.ConfigurableHTTPProxy.command


def test_the_facility_is_right() -> None:
    c = configured(
        cleanup_servers=True,
        default_url="/hub/home",
        tornado_settings={"slow_spawn_timeout": 7},
        template_paths=["/facility"],
        template_vars={"announcement": "x"},
        services=[{"name": "other"}],
        load_roles=[{"name": "other"}],
        extra_user_scopes={"shares!user"},
    )
    assert c.JupyterHub.cleanup_servers is True
    assert c.JupyterHub.default_url == "/hub/home"
    assert c.JupyterHub.tornado_settings["slow_spawn_timeout"] == 7
    assert c.JupyterHub.tornado_settings["slow_stop_timeout"] == 10
    assert c.JupyterHub.template_paths[0] == "/facility"
    assert c.JupyterHub.template_paths[1].endswith("templates/hub")
    assert c.JupyterHub.template_vars["announcement"] == "x"
    assert [service["name"] for service in c.JupyterHub.services] == ["other", "visahub"]
    assert [role["name"] for role in c.JupyterHub.load_roles] == ["other", "visahub-portal"]
    assert c.JupyterHub.extra_user_scopes == {"shares!user", "access:services!service=visahub"}


def test_the_portal_gets_little() -> None:
    c = configured(services=[], load_roles=[])
    (service,) = c.JupyterHub.services
    assert service["oauth_client_allowed_scopes"] == ["servers", "read:users:name"]
    (role,) = c.JupyterHub.load_roles
    assert role["scopes"] == ["custom:visahub:round"]


def test_a_portal_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISAHUB_PORTAL_TOKEN", "secret-token-of-the-unit")
    c = configured(services=[])
    (service,) = c.JupyterHub.services
    assert "command" not in service
    assert service["api_token"] == "secret-token-of-the-unit"


def test_wrong_settings_name_themselves() -> None:
    c = Config()
    c.Visahub.start_seconds = 1
    with pytest.raises(TraitError, match="start_seconds"):
        configure(c)
