"""What may be chosen: environments (software) and hardware, and whether they are free now."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from .policy import Restriction

_KEY = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def check_key(setting: str, key: str) -> None:
    """Checks an identifier of the configuration; raises ValueError with a sentence that names the setting."""
    if not _KEY.fullmatch(key):
        raise ValueError(f"{setting}: the id {key!r} must be 1 to 64 lower-case letters, digits, '.', '_' or '-'.")


@dataclass(frozen=True, kw_only=True)
class Environment:
    """One software environment. `images` says, for each backend that can run it, what that backend calls it."""

    id: str
    name: str
    version: str = ""
    description: str = ""
    icon: str = "flask"
    has_desktop: bool = True
    images: Mapping[str, str] = field(default_factory=dict)
    restriction: Restriction = field(default_factory=Restriction)

    def __post_init__(self) -> None:
        check_key("Visahub.environments", self.id)


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """One size of machine. `memory_mb` is MiB; `place` is where it runs, in the user's words; `gpu` is '' for none."""

    id: str
    name: str
    backend: str
    place: str
    cores: int
    memory_mb: int
    gpu: str = ""
    description: str = ""
    restriction: Restriction = field(default_factory=Restriction)

    def __post_init__(self) -> None:
        check_key("Visahub.hardware", self.id)
        if self.cores < 1 or self.memory_mb < 1:
            raise ValueError(f"Visahub.hardware: {self.id!r} needs at least one core and 1 MiB of memory.")

    @property
    def size(self) -> str:
        """Says the size in words: 4 cores, 8 GB memory."""
        cores = "1 core" if self.cores == 1 else f"{self.cores} cores"
        gigabytes = f"{self.memory_mb / 1024:.1f}".removesuffix(".0")
        return f"{cores}, {gigabytes} GB memory" + (f", {self.gpu}" if self.gpu else "")


@dataclass(frozen=True, kw_only=True)
class Offer:
    """A hardware and whether it is free now. `is_free` is None when the backend could not be asked.

    `sentence` is what the card says: "free now, ready in about 2 s", "full: the next is expected at 16:30".
    """

    hardware: Hardware
    is_free: bool | None
    sentence: str
