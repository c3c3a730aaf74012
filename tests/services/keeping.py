"""The sample logins, with something of each person that the Hub keeps encrypted (JupyterHub's `auth_state`)."""

from __future__ import annotations

from typing import Any

from visahub.hub.authenticator import SampleAuthenticator


class KeepingAuthenticator(SampleAuthenticator):
    """Keeps the name once more, as a login of a facility keeps a token."""

    async def authenticate(self, handler: Any, data: dict[str, str]) -> dict[str, Any] | None:
        model = await super().authenticate(handler, data)
        if model is not None and self.enable_auth_state:
            model["auth_state"] = {"kept": f"something of {model['name']}"}
        return model
