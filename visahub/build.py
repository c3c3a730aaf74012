"""Reads the configuration and builds the parts; called by the Hub, the portal and the command line, once a process."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from traitlets import Dict, Integer, List, TraitError, Unicode, validate
from traitlets.config import Config, Configurable, LoggingConfigurable
from traitlets.config.loader import PyFileConfigLoader
from traitlets.utils.importstring import import_item

from .backends.base import Backend
from .flows.launch import Menu
from .model.errors import Refused
from .model.offer import Environment, Hardware
from .model.policy import Restriction
from .sources.base import Source
from .store.database import Store

_Offered = TypeVar("_Offered", Environment, Hardware)
_Part = TypeVar("_Part", Backend, Source)


class Visahub(LoggingConfigurable):
    """The settings of one deployment. A part's own settings belong to its class, e.g. `c.LocalBackend`."""

    name = Unicode("Photon Science Data Analysis", help="The name of the service, as pages show it.").tag(config=True)
    deployment = Unicode(
        "visahub",
        help="The tag that everything started by this visahub carries outside: 2 to 32 lower-case letters, digits or "
        "'-'. Two visahubs that share a cloud or a cluster need two tags. Never change it while instances exist.",
    ).tag(config=True)
    database_url = Unicode(
        "sqlite:///visahub.sqlite",
        help="The database of visahub as an SQLAlchemy URL, e.g. `postgresql+psycopg://visahub@localhost/visahub`. "
        "Never the file of JupyterHub's own database. The default is a file in the Hub's working directory; "
        "use PostgreSQL for more than a few dozen users.",
    ).tag(config=True)
    backends = List(
        Unicode(),
        default_value=["visahub.backends.local.LocalBackend"],
        help="Where instances run: the import path of one class for each place. The default starts them as processes "
        "of this machine.",
    ).tag(config=True)
    sources = List(
        Unicode(),
        help="Where experiments come from: the import path of one class for each catalogue, none by default.",
    ).tag(config=True)
    environments = List(
        Dict(),
        help="What software is offered: one mapping for each environment with `id`, `name`, `images` (for each backend "
        "id what that backend calls it) and, as wanted, `version`, `description`, `icon`, `has_desktop` and "
        "`restriction` (a mapping with any of `roles`, `groups`, `instruments`, `sentence`).",
    ).tag(config=True)
    hardware = List(
        Dict(),
        help="What machines are offered: one mapping for each size with `id`, `name`, `backend`, `place`, `cores`, "
        "`memory_mb` and, as wanted, `gpu`, `description` and `restriction` (as for environments).",
    ).tag(config=True)
    uid_min = Integer(
        20000, min=1000, help="The lowest Unix uid that visahub gives to accounts. Keep it above those of the machine."
    ).tag(config=True)
    start_seconds = Integer(
        600,
        min=5,
        help="How long a start may take before it is given up, in seconds. The longest boot or queue that you allow.",
    ).tag(config=True)
    grace_seconds = Integer(
        30,
        min=1,
        help="For how long something may exist outside without being known, or be known and not be listed yet, in "
        "seconds, before it is cleaned up. Raise it for a cloud whose lists are late.",
    ).tag(config=True)
    keep_events_months = Integer(
        12,
        min=1,
        help="For how long what happened to instances is kept, in months of 30.5 days. The present start of an "
        "instance that exists is always kept. Shorten it when your rules on personal data ask for it.",
    ).tag(config=True)
    keep_instances_months = Integer(
        12,
        min=1,
        help="For how long deleted instances are remembered (who, when, with what), in months of 30.5 days. "
        "Statistics and `visahub privacy export` reach back so far.",
    ).tag(config=True)
    mirror_minutes = Integer(
        60, min=1, help="How often the sources are read again, in minutes. They are always read at the portal's start."
    ).tag(config=True)
    lab_folders = List(
        Unicode(),
        help="Builds of JupyterLab that the portal gives to browsers for all instances, compressed: the folder "
        "`share/jupyter/lab/static` of each image's Python environment. The JupyterLab beside the portal is always "
        "among them. Instances whose build is not here give out their own files: every new instance then loads slowly.",
    ).tag(config=True)
    portal_url = Unicode(
        "http://127.0.0.1:8090",
        help="Where the portal listens, as an internal address; users reach it through the Hub's proxy. Change it when "
        "the port is taken.",
    ).tag(config=True)
    portal_connect_url = Unicode(
        help="Where instances reach the portal, to tell when they were last used; the default is `portal_url`. Set it "
        "to the public address of the Hub when instances run on other machines."
    ).tag(config=True)

    @validate("deployment")
    def _checked_deployment(self, proposal: Mapping[str, Any]) -> str:
        value: str = proposal["value"]
        if not (2 <= len(value) <= 32 and value.replace("-", "").isalnum() and value.islower() and value.isascii()):
            raise TraitError(f"Visahub.deployment: {value!r} must be 2 to 32 lower-case letters, digits or '-'.")
        return value


@dataclass(frozen=True)
class Parts:
    """What a running visahub consists of."""

    store: Store
    backends: Mapping[str, Backend]
    menu: Menu
    sources: tuple[Source, ...]
    settings: Visahub

    def backend(self, backend_id: str) -> Backend:
        """Gives a backend by id; raises Refused when it is no longer configured."""
        if backend_id not in self.backends:
            raise Refused(
                f"The place {backend_id!r}, where this instance runs, is not configured any more. Ask the operators.",
                rule="unknown-backend",
                status=409,
            )
        return self.backends[backend_id]


_built: dict[str, Parts] = {}


def parts(config: Config) -> Parts:
    """Gives the parts of this process, built at the first call; raises TraitError with a sentence for the operator."""
    if "parts" not in _built:
        _built["parts"] = build(config)
    return _built["parts"]


def build(config: Config) -> Parts:
    """Builds new parts; raises TraitError with a sentence that names the setting. Opens no connection yet."""
    settings = Visahub(config=config)
    backends = _backends(settings, config)
    menu = menu_of(settings, backends)
    sources = tuple(_part("Visahub.sources", path, Source, config) for path in settings.sources)
    try:
        store = Store(settings.database_url)
    except ValueError as error:
        raise TraitError(f"Visahub.database_url: {error}") from error
    return Parts(store, backends, menu, sources, settings)


def configurables() -> list[type[Configurable]]:
    """Gives every class of visahub that has settings, for documentation; each is one a configuration may name."""
    return [
        Visahub,
        import_item("visahub.backends.local.LocalBackend"),
        import_item("visahub.sources.files.FilesSource"),
    ]


def read(path: str | Path) -> Config:
    """Reads a configuration file as JupyterHub does, for processes that are not the Hub."""
    file = Path(path).resolve()
    if not file.is_file():
        raise TraitError(f"There is no configuration file {file}. Give its path with --config.")
    return PyFileConfigLoader(file.name, path=str(file.parent)).load_config()


def share(*names: str) -> Path:
    """Finds a data file: in a checkout beside the package (editable installs copy none), else in the environment."""
    checkout = Path(__file__).parents[1]
    root = checkout / "share" if (checkout / "setup.cfg").exists() else Path(sys.prefix) / "share" / "visahub"
    return root.joinpath(*names)


def menu_of(settings: Visahub, backends: Mapping[str, Backend]) -> Menu:
    """Reads what is offered into dataclasses and checks that every offer fits its backend."""
    environments = [_offered("Visahub.environments", raw, Environment) for raw in settings.environments]
    hardware = [_offered("Visahub.hardware", raw, Hardware) for raw in settings.hardware]
    _check_unique("Visahub.environments", [environment.id for environment in environments])
    _check_unique("Visahub.hardware", [size.id for size in hardware])
    known = ", ".join(sorted(backends))
    for size in hardware:
        if size.backend not in backends:
            raise TraitError(
                f"Visahub.hardware: {size.id!r} names the backend {size.backend!r}. Visahub.backends has {known}."
            )
    for environment in environments:
        unknown = sorted(set(environment.images) - set(backends))
        if unknown:
            raise TraitError(
                f"Visahub.environments: {environment.id!r} has an image for {unknown[0]!r}. "
                f"Visahub.backends has {known}."
            )
    return Menu(environments=tuple(environments), hardware=tuple(hardware))


def _backends(settings: Visahub, config: Config) -> dict[str, Backend]:
    found: dict[str, Backend] = {}
    for path in settings.backends:
        backend = _part("Visahub.backends", path, Backend, config)
        backend.deployment = settings.deployment
        if not backend.id or backend.id in found:
            raise TraitError(f"Visahub.backends: {path} has the id {backend.id!r}; every backend needs one of its own.")
        found[backend.id] = backend
    return found


def _part(setting: str, path: str, base: type[_Part], config: Config) -> _Part:
    try:
        kind = import_item(path)
    except ImportError as error:
        raise TraitError(f"{setting}: {path!r} cannot be imported ({error}).") from error
    if not (isinstance(kind, type) and issubclass(kind, base)):
        raise TraitError(f"{setting}: {path!r} is not a {base.__name__}.")
    return kind(config=config)


def _offered(setting: str, raw: Mapping[str, Any], kind: type[_Offered]) -> _Offered:
    known = [field.name for field in fields(kind)]
    unknown = sorted(set(raw) - set(known))
    if unknown:
        raise TraitError(f"{setting}: {raw.get('id')!r} has {unknown[0]!r}. Known are {', '.join(known)}.")
    values = dict(raw)
    if not isinstance(values.get("restriction", {}), Restriction):
        values["restriction"] = _restriction(setting, values.get("restriction", {}))
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:
        sentence = str(error)
        raise TraitError(
            sentence if sentence.startswith(setting) else f"{setting}: {raw.get('id')!r}: {sentence}"
        ) from error


def _restriction(setting: str, raw: object) -> Restriction:
    if not isinstance(raw, Mapping) or not set(raw) <= {"roles", "groups", "instruments", "sentence"}:
        raise TraitError(f"{setting}: a restriction is a mapping with any of roles, groups, instruments and sentence.")
    for key in ("roles", "groups", "instruments"):
        if isinstance(raw.get(key, ()), str):
            raise TraitError(f"{setting}: {key} of a restriction is a list of names, not a text.")
    return Restriction(
        roles=frozenset(raw.get("roles", ())),
        groups=frozenset(raw.get("groups", ())),
        instruments=frozenset(raw.get("instruments", ())),
        sentence=raw.get("sentence", ""),
    )


def _check_unique(setting: str, ids: list[str]) -> None:
    twice = sorted({key for key in ids if ids.count(key) > 1})
    if twice:
        raise TraitError(f"{setting}: the id {twice[0]!r} is there twice. Every id is used once.")
