"""New secrets for old ones, as far as it takes more than a new file: asked of a running Hub; for `visahub sessions`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

from traitlets.config import Config

from . import addresses

_TOKEN = "JUPYTERHUB_API_TOKEN"  # noqa: S105 - the variable's name
_SECONDS = 30
# Whom the Hub names as the maker of a token that a person has made on its page, or a program in a person's name.
_PERSON = "JupyterHub"
_OF_INSTANCE = "Server at "


class NotDone(Exception):
    """The Hub could not be asked, or refused; the text is a sentence for the operator."""


class Unknown(NotDone):
    """The Hub knows nothing of that name or number."""


class Hub:
    """The Hub's API with an administrator's token."""

    def __init__(self, config: Config) -> None:
        self._url = addresses.hub_api_url(config)
        self._token = os.environ.get(_TOKEN, "")
        if not self._token:
            raise NotDone(
                f"Give an administrator's token of the Hub in {_TOKEN}: make one on the Hub's page Token, and revoke "
                "it afterwards."
            )

    def users(self, name: str = "") -> list[str]:
        """Gives the names of all users, or the one of that name."""
        if name:
            return [str(self._ask("GET", f"users/{quote(name, safe='')}")["name"])]
        found: list[str] = []
        while page := self._ask("GET", f"users?limit=100&offset={len(found)}"):
            found += [str(user["name"]) for user in page]
        return found

    def tokens(self, user: str) -> Iterator[dict[str, Any]]:
        """Gives all tokens of a user but those of running instances, which end with them."""
        for token in self._ask("GET", f"users/{quote(user, safe='')}/tokens")["api_tokens"]:
            if not str(token.get("note") or "").startswith(_OF_INSTANCE):
                yield token

    def revoke(self, user: str, token: dict[str, Any]) -> None:
        """Revokes a token; with one session the Hub ends all that the same browser page has for this user."""
        try:
            self._ask("DELETE", f"users/{quote(user, safe='')}/tokens/{token['id']}")
        except Unknown:
            return

    def rewrite(self, user: str) -> bool:
        """Lets the Hub read what it keeps of a login, which writes it anew with the first of its keys."""
        return self._ask("GET", f"users/{quote(user, safe='')}").get("auth_state") is not None

    def _ask(self, method: str, path: str) -> Any:
        headers = {"Authorization": f"token {self._token}", "Accept": "application/json"}
        try:
            request = Request(f"{self._url}/{path}", method=method, headers=headers)  # noqa: S310 - our own settings
            with urlopen(request, timeout=_SECONDS) as answer:  # noqa: S310
                body = answer.read()
        except HTTPError as error:
            with error:
                raise _refusal(error.code, path) from error
        except OSError as error:
            raise NotDone(f"The Hub does not answer at {self._url}. Start it, then try again.") from error
        return json.loads(body) if body else None


def end_sessions(hub: Hub, name: str = "") -> int:
    """Ends what browsers were let in with, of one user or of all; gives how many. Instances and scripts go on."""
    return _revoke(hub, name, of_person=False)


def revoke_tokens(hub: Hub, name: str = "") -> int:
    """Revokes the tokens that people made for their scripts, of one user or of all; gives how many."""
    return _revoke(hub, name, of_person=True)


def _revoke(hub: Hub, name: str, *, of_person: bool) -> int:
    done = 0
    for user in hub.users(name):
        for token in hub.tokens(user):
            if (token.get("oauth_client") == _PERSON) is of_person:
                hub.revoke(user, token)
                done += 1
    return done


def rewrite_logins(hub: Hub) -> int:
    """Writes anew what the Hub keeps of each login; gives for how many people there is something."""
    return sum(hub.rewrite(user) for user in hub.users())


def _refusal(status: int, path: str) -> NotDone:
    if status == 404:
        return Unknown(f"The Hub knows nothing at {path.split('?')[0]}: is the name right?")
    if status in {401, 403}:
        return NotDone(f"The token in {_TOKEN} may not do this: it has to be an administrator's, and not revoked.")
    return NotDone(f"The Hub answered {status}. Its log says why: journalctl -u visahub-hub")
