"""An untrusted choice becomes a request, or Refused: the one validator behind form, address and JSON API."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .errors import Refused

# The client's own, or one of ten (visa.md P9).
RESOLUTIONS = (
    "client",
    "1280x720",
    "1366x768",
    "1440x900",
    "1600x900",
    "1680x1050",
    "1920x1080",
    "1920x1200",
    "2560x1440",
    "2560x1600",
    "3840x2160",
)
# X keyboard layouts, as setxkbmap names them, with the names that people read.
KEYBOARDS = {
    "us": "English (US)",
    "gb": "English (UK)",
    "de": "German",
    "fr": "French",
    "es": "Spanish",
    "it": "Italian",
    "ch": "Swiss",
    "se": "Swedish",
    "dk": "Danish",
    "pl": "Polish",
}
MAX_EXPERIMENTS = 20
MAX_ID = 200
MAX_NAME = 100
MAX_NOTES = 2500
# All choices of one instance together, in bytes of JSON.
MAX_OPTIONS = 16 * 1024

_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, kw_only=True)
class StartRequest:
    """What somebody wants to start. Every field is checked; nothing of it is trusted in a path or a script."""

    experiments: tuple[str, ...] = ()
    environment: str = ""
    hardware: str = ""
    name: str = ""
    resolution: str = "client"
    keyboard: str = "us"
    notes: str = ""

    @classmethod
    def read(cls, raw: object) -> StartRequest:
        """Reads an untrusted mapping; raises Refused (status 422) with a sentence that names the field."""
        if not isinstance(raw, Mapping):
            raise _refused("options", "The choices must be one JSON object. Send a field for each choice.")
        unknown = [key for key in raw if key not in _FIELDS]
        if unknown:
            shown = ", ".join(_shown(key) for key in unknown[:3])
            raise _refused("unknown-field", f"There is no choice named {shown}. Known are {', '.join(_FIELDS)}.")
        request = cls(
            experiments=_experiments(raw.get("experiments", ())),
            environment=_key(raw, "environment"),
            hardware=_key(raw, "hardware"),
            name=_text(raw, "name", MAX_NAME, lines=False),
            resolution=_one_of(raw, "resolution", RESOLUTIONS),
            keyboard=_one_of(raw, "keyboard", tuple(KEYBOARDS)),
            notes=_text(raw, "notes", MAX_NOTES, lines=True),
        )
        size = len(json.dumps(request.as_options(), ensure_ascii=False).encode())
        if size > MAX_OPTIONS:
            raise _refused("options", f"The choices take {size} bytes, {MAX_OPTIONS} fit. Shorten the notes.")
        return request

    def as_options(self) -> dict[str, Any]:
        """Gives the mapping that `read` reads back to an equal request."""
        return {
            "experiments": list(self.experiments),
            "environment": self.environment,
            "hardware": self.hardware,
            "name": self.name,
            "resolution": self.resolution,
            "keyboard": self.keyboard,
            "notes": self.notes,
        }


_FIELDS = ("experiments", "environment", "hardware", "name", "resolution", "keyboard", "notes")


def _refused(rule: str, sentence: str) -> Refused:
    return Refused(sentence, rule=rule, status=422)


def _shown(value: object) -> str:
    """Shows a hostile value in a sentence: short, printable, quoted; what is no text by its kind only."""
    if isinstance(value, str):
        return ascii(value[:40])
    kinds = ((bool, "a truth value"), (int | float, "a number"), (Mapping, "an object"), (list | tuple, "a list"))
    return next((name for kind, name in kinds if isinstance(value, kind)), "nothing" if value is None else "a thing")


def _experiments(value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise _refused("experiments", "experiments must be a list of experiment ids. Choose them on the form again.")
    if len(value) > MAX_EXPERIMENTS:
        raise _refused(
            "experiments",
            f"One instance takes at most {MAX_EXPERIMENTS} experiments, you chose {len(value)}. Remove some of them.",
        )
    for item in value:
        if not isinstance(item, str) or not 1 <= len(item) <= MAX_ID or not _is_plain(item, lines=False):
            raise _refused("experiments", f"{_shown(item)} is not an experiment id. Choose it on the form again.")
    return tuple(dict.fromkeys(value))


def _key(raw: Mapping[Any, object], field: str) -> str:
    value = raw.get(field, "")
    if not isinstance(value, str) or not _KEY.fullmatch(value):
        raise _refused(field, f"{_shown(value)} is not an {field}. Choose one of the cards.".replace("an h", "a h"))
    return value


def _one_of(raw: Mapping[Any, object], field: str, known: tuple[str, ...]) -> str:
    value = raw.get(field, known[0])
    if not isinstance(value, str) or value not in known:
        raise _refused(field, f"The {field} {_shown(value)} is not offered. Choose one of {', '.join(known)}.")
    return value


def _text(raw: Mapping[Any, object], field: str, longest: int, *, lines: bool) -> str:
    value = raw.get(field, "")
    if not isinstance(value, str):
        raise _refused(field, f"The {field} must be text.")
    if len(value) > longest:
        raise _refused(field, f"The {field} has {len(value)} characters, at most {longest} fit. Shorten it.")
    if lines:
        value = value.replace("\r\n", "\n").replace("\r", "\n")
    if not _is_plain(value, lines=lines):
        raise _refused(field, f"The {field} contains control characters. Type it again as plain text.")
    # JupyterHub takes no name with other or more white space between its words.
    return value.strip() if lines else " ".join(value.split())


def _is_plain(value: str, *, lines: bool) -> bool:
    """Allows printable text; refuses control, direction-changing and unpaired surrogate characters."""
    allowed = "\n\t" if lines else ""
    return all(char in allowed or unicodedata.category(char) not in {"Cc", "Cf", "Cs", "Zl", "Zp"} for char in value)
