"""From an admission to the launch that a backend gets, with all that its instance is told. Called by `spawner.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..flows.launch import Admission
from ..model.launch import Launch
from .portal import connect_address, public_address

# Where a spawned server would get more than it needs: old names of the same token, and the Hub's own settings.
_NOT_FOR_INSTANCES = {"JPY_API_TOKEN", "JUPYTERHUB_OAUTH_SCOPES", "JUPYTERHUB_ADMIN_ACCESS"}


def of(spawner: Any, admission: Admission) -> Launch:
    """Gives the launch of an admitted start."""
    instance, request = admission.instance, admission.instance.request
    return Launch(
        instance_id=instance.id,
        attempt=instance.attempt,
        deployment=spawner.desk.parts.settings.deployment,
        name=instance.name,
        account=admission.account,
        experiments=admission.experiments,
        environment=admission.environment,
        hardware=admission.hardware,
        resolution=request.resolution,
        keyboard=request.keyboard,
        environ=spawner.get_env(),
    )


def environ(spawner: Any, inherited: Mapping[str, str]) -> dict[str, str]:
    """Gives what the Hub tells an instance: the environment of every server, and where portal and Hub are."""
    settings, hub = spawner.desk.parts.settings, spawner.hub
    told = {
        "VISAHUB_PORTAL": connect_address(spawner.user.settings, settings.portal_connect_url or settings.portal_url),
        "VISAHUB_PORTAL_PUBLIC": public_address(spawner.user.settings),
        "VISAHUB_HUB": f"{hub.public_host}{hub.base_url}",
    }
    return {key: value for key, value in {**inherited, **told}.items() if value and key not in _NOT_FOR_INSTANCES}
