"""Keeps the page of another instance from reading this one's files on a common domain; set up by `extension.py`.

JupyterHub checks no token when a script fetches in the mode "no-cors" from its own domain, in the belief that it cannot
read the answer. It can; with a domain for each user it never gets there.
"""

from __future__ import annotations

from typing import Any

from jupyter_server.base.handlers import JupyterHandler
from tornado import web

_prepare = JupyterHandler.prepare


def stand() -> None:
    """Stands before every handler of the server, also of other extensions; right when called twice."""
    JupyterHandler.prepare = prepare  # type: ignore[assignment]


async def prepare(handler: JupyterHandler, **more: Any) -> None:
    """Refuses such a request before anybody is recognised; else does what Jupyter Server does."""
    headers = handler.request.headers
    # Images, scripts and styles have a destination of their own, and a token in the header needs no cookie.
    is_hidden = headers.get("Sec-Fetch-Mode") == "no-cors" and headers.get("Sec-Fetch-Dest") == "empty"
    if is_hidden and "Authorization" not in headers:
        handler.set_status(403)
        raise web.Finish()
    await _prepare(handler, **more)
