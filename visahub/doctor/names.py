"""Whether every setting of the configuration is one: a misspelt name changes nothing, in silence."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from jupyterhub.app import JupyterHub
from traitlets.config import Configurable
from traitlets.utils.importstring import import_item

from .. import build
from .findings import Answer, Check, Grade, Site


def _names_of_settings(site: Site) -> Answer:
    known = {one.__name__: one for kind in _classes(site) for one in kind.mro() if issubclass(one, Configurable)}
    wrong: list[str] = []
    odd: list[str] = []
    for section, settings in site.config.items():
        if not settings:
            continue
        if section not in known:
            near = difflib.get_close_matches(section, known, 1, 0.8)
            (wrong if near else odd).append(f"c.{section}{_hint(near)}")
            continue
        traits = known[section].class_trait_names(config=True)
        for name in settings:
            if name not in traits:
                wrong.append(f"c.{section}.{name}{_hint(difflib.get_close_matches(name, traits, 1, 0.7))}")
    if wrong:
        return Grade.PROBLEM, (
            f"There is no setting {'; no setting '.join(wrong)}. It has no effect as it stands: correct or remove it "
            f"in {site.file}."
        )
    if odd:
        return (
            Grade.WARNING,
            f"Nothing here reads {', '.join(odd)}. Fine for a class of your own; else remove it.",
        )
    return Grade.OK, "Every setting is one."


def _hint(near: list[str]) -> str:
    return f" (meant is {near[0]}?)" if near else ""


def _classes(site: Site) -> Iterable[type]:
    """Gives every class whose settings this configuration may set."""
    yield from build.configurables()
    if site.parts is not None:
        yield from (type(part) for part in (*site.parts.backends.values(), *site.parts.sources))
    yield JupyterHub
    yield from JupyterHub.class_traits()["classes"].default() or ()
    for name in ("authenticator_class", "spawner_class", "proxy_class"):
        value = site.config.JupyterHub.get(name) or JupyterHub.class_traits()[name].default_value
        if isinstance(value, str):
            # Short names are entry points; the trait knows them.
            value = _loaded(name, value)
        if isinstance(value, type):
            yield value
    for path in ("jupyterhub.crypto.CryptKeeper", "jupyterhub.httpclient.JupyterHubHTTPClient"):
        found = _imported(path)
        if found is not None:
            yield found


def _loaded(name: str, value: str) -> type | None:
    entries = JupyterHub.class_traits()[name].load_entry_points()
    if value.lower() in entries:
        loaded = entries[value.lower()].load()
        return loaded if isinstance(loaded, type) else None
    return _imported(value)


def _imported(path: str) -> type | None:
    try:
        found = import_item(path)
    except (ImportError, ValueError):
        return None
    return found if isinstance(found, type) else None


CHECKS: tuple[Check, ...] = (_names_of_settings,)
