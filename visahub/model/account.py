"""Who somebody is: one account with one Unix uid for life, its roles and groups."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum

from .errors import Refused

# What Debian's useradd accepts, and what is safe in a path, a host name and a batch script.
_USERNAME = re.compile(r"[a-z][a-z0-9_-]{0,30}[a-z0-9]")


class Role(StrEnum):
    """What an account is at the facility (visa.md A6). An account without a role is an ordinary user."""

    GUEST = "guest"
    STAFF = "staff"
    INSTRUMENT_SCIENTIST = "instrument-scientist"
    SUPPORT = "support"
    ADMIN = "admin"


@dataclass(frozen=True, kw_only=True)
class Account:
    """One person: `uid` and `gid` are Unix numbers, `quota` counts instances (-1: no limit, 0: pending approval)."""

    id: int
    username: str
    uid: int
    gid: int
    display_name: str = ""
    email: str = field(default="", repr=False)
    roles: frozenset[Role] = frozenset()
    groups: frozenset[str] = frozenset()
    # Instruments of which this account is the instrument scientist.
    instruments: frozenset[str] = frozenset()
    quota: int = 2

    def has(self, *roles: Role) -> bool:
        """Tells whether the account has any of these roles."""
        return not self.roles.isdisjoint(roles)

    @property
    def may_start_without_experiment(self) -> bool:
        """Staff, guests and administrators need no experiment (visa.md A8, A9, B1)."""
        return self.has(Role.STAFF, Role.GUEST, Role.ADMIN, Role.SUPPORT, Role.INSTRUMENT_SCIENTIST)


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What one login says about a person; `issuer` and `subject` together name the identity for ever."""

    issuer: str
    subject: str
    username: str
    display_name: str = ""
    email: str = field(default="", repr=False)
    roles: frozenset[Role] = frozenset()
    groups: frozenset[str] = frozenset()
    instruments: frozenset[str] = frozenset()
    quota: int | None = None

    def __post_init__(self) -> None:
        if not is_username(self.username):
            raise Refused(
                f"The login gave the user name {self.username[:40]!r}, which cannot be a Unix account. "
                "Ask the facility's user office for a name of 2 to 32 lower-case letters, digits, '-' or '_'.",
                rule="username",
            )


def is_username(name: str) -> bool:
    """Tells whether a name can be a Unix account, a path and a part of a server's address."""
    return _USERNAME.fullmatch(name) is not None
