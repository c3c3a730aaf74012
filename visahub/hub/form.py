"""The Hub's spawn page leads to the portal's form, with the same choices; nothing starts because a page was opened."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from ..model.request import StartRequest
from .portal import new_instance_address

_LISTS = {"experiments"}
# What the Hub's own form sends besides the choices.
_NOT_CHOICES = {"_xsrf"}
# As many choices as an address may carry to the portal; more would only be refused there.
_MOST = 50
_LONGEST = 500


class NothingStarted(Exception):
    """Makes the Hub show its form instead of starting a server with the choices of an address."""

    # The Hub shows this as the error; there is none.
    jupyterhub_message = ""


def options(form_data: Mapping[str, list[Any]]) -> dict[str, Any]:
    """Turns a form's lists of strings into the mapping that `StartRequest.read` judges; unknown fields stay in."""
    read: dict[str, Any] = {}
    for name, values in form_data.items():
        if name in _LISTS:
            read[name] = list(values)
        elif name not in _NOT_CHOICES:
            read[name] = values[-1] if values else ""
    return read


def keep(handler: Any, query: Mapping[str, list[str]]) -> None:
    """Keeps the choices of an address until the page is made, a moment later, in the same request."""
    # The default server's spawner is the one that the Hub gives to the page when a form fails, so the handler keeps it.
    handler.visahub_choices = {
        name: [value[:_LONGEST] for value in values[:_MOST]] for name, values in list(query.items())[:_MOST]
    }


def fragment(spawner: Any) -> Markup:
    """Gives what the Hub's page shows instead of its own form."""
    return link(spawner.handler, spawner.user.settings)


def link(handler: Any, settings: dict[str, Any]) -> Markup:
    """Gives the link to the portal's form with the choices that were kept, as HTML."""
    choices = getattr(handler, "visahub_choices", {})
    known = {name: values for name, values in choices.items() if name in _links()}
    address = new_instance_address(settings, known)
    return Markup('<a id="visahub-new" class="btn btn-start btn-lg" href="{}">Choose and start</a>').format(address)


def _links() -> frozenset[str]:
    """The names that a link may carry: those of a request, and the ways to name an experiment."""
    return frozenset(StartRequest().as_options()) | {"experiment", "proposal", "doi"}
