"""The Hub's pages are for people, not for scripts: keeps pages of instances from reading them on one common domain.

A page of the Hub holds the token that its changes need. JupyterHub lets every script of its own domain fetch it with
the visitor's cookies, and instances are on that domain unless every user has one (`JupyterHub.subdomain_host`).
"""

from __future__ import annotations

from jupyterhub.apihandlers.base import APIHandler
from jupyterhub.handlers.base import BaseHandler
from tornado import web

_SENTENCE = "A page of the Hub is opened in a window of its own. A program uses the API, with a token in the header."
_prepare = BaseHandler.prepare


def stand() -> None:
    """Stands before every page: also those of authenticators, and the one for what is absent; right when called twice.

    JupyterHub has no setting for it, and what is put before single handlers misses the page for errors, which holds
    the token, too.
    """
    BaseHandler.prepare = prepare


async def prepare(handler: BaseHandler) -> None:
    """Answers a script with a sentence, before anybody is recognised; else does what JupyterHub does."""
    if is_read_by_a_script(handler):
        handler.set_status(403)
        handler.set_header("Content-Type", "text/plain; charset=utf-8")
        raise web.Finish(_SENTENCE)
    await _prepare(handler)


def is_read_by_a_script(handler: BaseHandler) -> bool:
    """Tells it by what the browser says of the request; programs say nothing, and a token needs no cookie."""
    headers = handler.request.headers
    mode, destination = headers.get("Sec-Fetch-Mode", "navigate"), headers.get("Sec-Fetch-Dest", "empty")
    # An image is not read in this way; only a script has no other destination.
    if "Authorization" in headers or destination != "empty":
        return False
    # In the other modes the API checks a token. In this one JupyterHub thinks that nobody reads the answer.
    return bool(mode == "no-cors" if isinstance(handler, APIHandler) else mode != "navigate")
