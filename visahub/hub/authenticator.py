"""Logins. For now the sample one of the demonstration: invented accounts that share a password."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from jupyterhub.authenticators.shared import SharedPasswordAuthenticator
from tornado import web
from traitlets import Unicode, default

from .. import build
from ..flows.enter import enter
from ..model.account import Identity, Role
from ..model.errors import Refused, VisahubError
from ..store.database import ask
from .desk import Desk
from .metrics import LOGINS

_ISSUER = "samples"


class SampleAuthenticator(SharedPasswordAuthenticator):
    """Lets the sample accounts in. Only for demonstrations: everybody who knows the password is any of them."""

    accounts_file = Unicode(
        help="The JSON file of the sample accounts. The default is the one that comes with visahub."
    ).tag(config=True)

    @default("accounts_file")
    def _default_accounts_file(self) -> str:
        return str(build.share("samples", "accounts.json"))

    @default("user_password")
    def _default_user_password(self) -> str | None:
        return os.environ.get("VISAHUB_USER_PASSWORD") or None

    @default("admin_password")
    def _default_admin_password(self) -> str | None:
        return os.environ.get("VISAHUB_ADMIN_PASSWORD") or None

    @default("allowed_users")
    def _default_allowed_users(self) -> set[str]:
        return set(self.identities)

    @default("admin_users")
    def _default_admin_users(self) -> set[str]:
        return {name for name, identity in self.identities.items() if Role.ADMIN in identity.roles}

    @cached_property
    def identities(self) -> dict[str, Identity]:
        """The sample accounts by user name."""
        return {raw["username"]: sample_identity(raw) for raw in json.loads(Path(self.accounts_file).read_text())}

    @cached_property
    def throttle(self) -> Throttle:
        return Throttle()

    async def authenticate(self, handler: Any, data: dict[str, str]) -> dict[str, Any] | None:
        """Checks the password and enters the account, so that its uid is known before anything starts."""
        name = str(data.get("username", ""))[:255]
        address = handler.request.remote_ip
        try:
            self.throttle.check(name, address)
        except web.HTTPError:
            LOGINS.labels("throttled").inc()
            raise
        known = self.normalize_username(name)
        model: dict[str, Any] | None = None
        if known in self.identities:
            model = await super().authenticate(handler, {"username": name, "password": str(data.get("password", ""))})
        if model is None:
            self.throttle.count(name, address)
            LOGINS.labels("failed").inc()
            return None
        identity = self.identities[known]
        parts = Desk.of(self.config).parts
        try:
            await ask(enter, parts.store, identity, uid_min=parts.settings.uid_min)
        except Refused as error:
            raise web.HTTPError(error.status, error.sentence) from None
        except VisahubError as error:
            LOGINS.labels("away").inc()
            raise web.HTTPError(503, error.sentence) from None
        LOGINS.labels("in").inc()
        shown = identity.display_name or known
        return {**model, "user_info": {"name": shown, "display_name": shown}}


class Throttle:
    """Slows down who guesses: after a few failures a name and an address wait. Its memory is bounded."""

    seconds = 300
    most_by_name = 10
    most_by_address = 50
    _most_keys = 10_000

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: OrderedDict[tuple[str, str], deque[float]] = OrderedDict()

    def check(self, name: str, address: str) -> None:
        """Raises the Hub's error with a sentence when there were too many failures lately."""
        for key, most in ((("name", name), self.most_by_name), (("address", address), self.most_by_address)):
            failures = self._failures.get(key, deque())
            while failures and failures[0] < self._clock() - self.seconds:
                failures.popleft()
            if len(failures) >= most:
                raise web.HTTPError(
                    429, f"There were too many failed logins. Wait {self.seconds // 60} minutes, then try again."
                )

    def count(self, name: str, address: str) -> None:
        """Remembers a failure."""
        for key in (("name", name), ("address", address)):
            failures = self._failures.setdefault(key, deque(maxlen=self.most_by_address))
            failures.append(self._clock())
            self._failures.move_to_end(key)
        while len(self._failures) > self._most_keys:
            self._failures.popitem(last=False)


def passwords(path: Path) -> dict[str, str]:
    """Gives the demonstration's two passwords, made at the first call and kept in a file that only its owner reads."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        made = {"user": secrets.token_urlsafe(9), "admin": secrets.token_urlsafe(30)}
        with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
            json.dump(made, file)
    read: dict[str, str] = json.loads(path.read_text())
    return read


def sample_identity(raw: dict[str, Any]) -> Identity:
    """Reads one entry of the file of sample accounts."""
    return Identity(
        issuer=_ISSUER,
        subject=raw["username"],
        username=raw["username"],
        display_name=raw.get("display_name", ""),
        email=raw.get("email", ""),
        roles=frozenset(Role(role) for role in raw.get("roles", [])),
        groups=frozenset(raw.get("groups", [])),
        instruments=frozenset(raw.get("instruments", [])),
        quota=raw.get("quota"),
    )
