"""What a check looks at and what it answers; shared by every other module of this room."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from traitlets.config import Config

from .. import addresses, build

_ANSWER_SECONDS = 2
# Where the units of share/systemd/ keep their secrets, beside the configuration.
SECRETS = ("proxy.env", "portal.env", "hub.env")
CORRECT_FIRST = "The settings have to be corrected first."


class Grade(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Finding:
    """One check's answer: what was found and, unless it is fine, what to do."""

    grade: Grade
    check: str
    sentence: str


@dataclass(frozen=True)
class Site:
    """What the checks look at. `parts` is None when the settings cannot be used."""

    file: Path
    config: Config
    parts: build.Parts | None

    def setting(self, section: str, name: str, default: str = "") -> str:
        """Gives a setting as text."""
        return str(addresses.setting(self.config, section, name, default))

    @property
    def is_proxy_elsewhere(self) -> bool:
        """Tells whether the Hub does not start the proxy of this environment."""
        starts = addresses.setting(self.config, "ConfigurableHTTPProxy", "should_start", True)
        return not starts or "proxy_class" in self.config.JupyterHub

    @property
    def is_local(self) -> bool:
        """Tells whether instances run on this machine, as far as is known."""
        return self.parts is None or "local" in self.parts.backends

    def file_of(self, section: str, name: str, default: str) -> Path | None:
        """Gives the file of a database, None when it is on a server."""
        url = self.setting(section, name, default)
        # JupyterHub takes a plain path for a file, too.
        return None if "://" in url and not url.startswith("sqlite:///") else Path(url.removeprefix("sqlite:///"))


Answer = tuple[Grade, str]
Check = Callable[[Site], Answer]


@contextmanager
def environment(folder: Path) -> Iterator[None]:
    """Lets the doctor know what the units know: the files of secrets beside the configuration, as far as readable."""
    added = {}
    for name in SECRETS:
        try:
            lines = (folder / name).read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            key, equals, value = line.partition("=")
            if equals and not line.startswith("#") and key not in os.environ:
                added[key] = value.strip("\"'")
    os.environ.update(added)
    try:
        yield
    finally:
        for key in added:
            os.environ.pop(key, None)


def asked(url: str, token: str = "") -> tuple[int, Any]:
    """Asks an address of this machine; gives the status (0: nobody answers) and the JSON of the answer, if any."""
    headers = {"Authorization": f"token {token}"} if token else {}
    try:
        with urlopen(Request(url, headers=headers), timeout=_ANSWER_SECONDS) as answer:  # noqa: S310 - our own settings
            return answer.status, _json(answer.read(100_000))
    except HTTPError as error:
        with error:
            return error.code, _json(error.read(100_000))
    except (OSError, ValueError):
        return 0, None


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None
