"""What is filled in on the form for a new instance, however it came there; used by `choosing.py`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tornado.web import RequestHandler

from ..model.errors import Refused
from ..model.experiment import Search
from ..model.instance import Instance, friendly_name, new_instance_id
from ..model.request import KEYBOARDS, MAX_EXPERIMENTS, RESOLUTIONS, StartRequest

# Languages of browsers, most special first, and the keyboard that most likely lies before the user.
_LANGUAGES = (
    ("de-ch", "ch"),
    ("fr-ch", "ch"),
    ("it-ch", "ch"),
    ("en-gb", "gb"),
    ("en-ie", "gb"),
    ("de", "de"),
    ("fr", "fr"),
    ("es", "es"),
    ("it", "it"),
    ("sv", "se"),
    ("da", "dk"),
    ("pl", "pl"),
    ("en", "us"),
)
_SERVER_NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")


@dataclass(frozen=True, kw_only=True)
class Form:
    """The fields as they stand. Values are checked by `StartRequest.read`, not here: a wrong one must come back too."""

    server_name: str = field(default_factory=new_instance_id)
    experiments: tuple[str, ...] = ()
    environment: str = ""
    hardware: str = ""
    name: str = field(default_factory=friendly_name)
    resolution: str = RESOLUTIONS[0]
    keyboard: str = "us"
    notes: str = ""
    search: Search = field(default_factory=Search)

    def as_options(self) -> dict[str, Any]:
        return {
            "experiments": list(self.experiments),
            "environment": self.environment,
            "hardware": self.hardware,
            "name": self.name,
            "resolution": self.resolution,
            "keyboard": self.keyboard,
            "notes": self.notes,
        }

    def request(self) -> StartRequest:
        """Reads the fields; raises Refused with a sentence that names the wrong one."""
        if not self.environment:
            raise Refused(
                "No environment is chosen. Choose one of the cards of step 2.", rule="environment", status=422
            )
        if not self.hardware:
            raise Refused("No hardware is chosen. Choose a card of step 3.", rule="hardware", status=422)
        return StartRequest.read(self.as_options())


def posted(handler: RequestHandler, search: Search) -> Form:
    """Reads the form that a browser sent."""
    gone = handler.get_arguments("remove")
    experiments = [key for key in handler.get_arguments("experiment") if key not in gone]
    name = "" if handler.get_argument("another_name", "") else handler.get_argument("name", "")
    return Form(
        server_name=checked_server_name(handler.get_argument("server_name", "")),
        experiments=tuple(dict.fromkeys(experiments)),
        environment=handler.get_argument("environment", ""),
        hardware=handler.get_argument("hardware", ""),
        name=name or friendly_name(),
        resolution=handler.get_argument("resolution", RESOLUTIONS[0]),
        keyboard=handler.get_argument("keyboard", "us"),
        notes=handler.get_argument("notes", "", strip=False),
        search=search,
    )


def checked_server_name(name: str) -> str:
    """Checks the name that a form carries so that pressing Start twice starts once."""
    if not _SERVER_NAME.fullmatch(name):
        raise Refused("This form is incomplete. Reload the page and fill it in again.", rule="server-name", status=422)
    return name


def linked(handler: RequestHandler, search: Search, preferences: Mapping[str, Any], instance: Instance | None) -> Form:
    """Fills the form from an address: from an instance's choices or from parameters, else from the last start."""
    last = preferences.get("last")
    last = last if isinstance(last, dict) else {}
    usual = {key: str(last.get(key, "")) for key in ("environment", "hardware", "resolution", "keyboard")}
    if not usual["keyboard"]:
        usual["keyboard"] = guessed_keyboard(handler.request.headers.get("Accept-Language", ""))
    usual["resolution"] = usual["resolution"] or RESOLUTIONS[0]
    if instance is not None:
        options = instance.request.as_options()
        options["experiments"] = tuple(options["experiments"])
        reused = instance.server_name if instance.may_start else new_instance_id()
        return Form(server_name=reused, search=search, **(options | {"name": options["name"] or friendly_name()}))
    for key in ("environment", "hardware"):
        usual[key] = handler.get_argument(key, "")[:64] or usual[key]
    return Form(
        search=search,
        environment=usual["environment"],
        hardware=usual["hardware"],
        resolution=usual["resolution"],
        keyboard=usual["keyboard"],
        name=handler.get_argument("name", "")[:100] or friendly_name(),
    )


def asked_for(handler: RequestHandler, field_name: str) -> list[str]:
    """Gives the values of a deep link's parameter, written as often as wanted or with commas."""
    values: Iterable[str] = handler.get_arguments(field_name)
    if field_name != "experiment":
        values = (part.strip() for value in values for part in value.split(","))
    return list(dict.fromkeys(value[:200] for value in values if value))[:MAX_EXPERIMENTS]


def bare_doi(doi: str) -> str:
    """Takes the address of the resolver away: people paste whole links."""
    return re.sub(r"^(https?://(dx\.)?doi\.org/|doi:)", "", doi, flags=re.IGNORECASE)


def guessed_keyboard(languages: str) -> str:
    """Guesses a keyboard from a browser's languages, best first: "de-CH,de;q=0.9"."""
    for language in languages.lower().split(",")[:5]:
        tag = language.partition(";")[0].strip()
        for prefix, keyboard in _LANGUAGES:
            if (tag == prefix or tag.startswith(prefix + "-")) and keyboard in KEYBOARDS:
                return keyboard
    return "us"
