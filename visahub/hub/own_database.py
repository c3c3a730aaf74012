"""While the Hub's own database does not answer: a sentence, nobody logged out, and an event loop that stays free.

The stock Hub waits 5 s for a locked SQLite file, with everything else, and then takes whoever asked for nobody: pages
lead to the login, tokens are "invalid", and services and instances remember that. Set up by `settings.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import wraps
from typing import Any

from jupyterhub.handlers.base import BaseHandler
from tornado import web

from ..store.database import is_lost, is_trouble

_BUSY = (
    "The Hub is busy: its database does not answer. You stay logged in and what runs goes on; try again in a moment."
)
_RETRY_SECONDS = 2
# A page of the Hub asks several questions, and says within a second that it is busy.
_LOCK_SECONDS = 0.5
_CONNECT_SECONDS = 2
# The Hub rests at most for so long after a question that went unanswered.
_LONGEST_REST = 1.0


def arguments(db_url: str) -> dict[str, Any]:
    """Gives `JupyterHub.db_kwargs`: how long the Hub waits for its database, and that it notices a lost connection."""
    if db_url.startswith("postgresql"):
        reach: dict[str, Any] = {"connect_timeout": _CONNECT_SECONDS}
        if "options=" not in db_url:
            reach["options"] = f"-c lock_timeout={int(_LOCK_SECONDS * 1000)}"
        return {"pool_pre_ping": True, "connect_args": reach}
    if db_url.startswith("sqlite") and "memory" not in db_url:
        return {"connect_args": {"check_same_thread": False, "timeout": _LOCK_SECONDS}}
    return {"pool_pre_ping": True}


class Rest:
    """After a question that took long in vain, asks nothing for as long again: half of the Hub's time stays free."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until = 0.0

    def after(self, began: float) -> None:
        """Begins a rest as long as the question that failed; one that failed at once needs none."""
        now = self._clock()
        self._until = now + min(now - began, _LONGEST_REST)

    @property
    def is_on(self) -> bool:
        return self._clock() < self._until


def busy() -> web.HTTPError:
    """Gives the answer of a Hub whose database does not answer."""
    error = web.HTTPError(503, reason="Service Unavailable")
    # The Hub shows this, and sends these headers, on pages and in JSON alike.
    error.jupyterhub_message = _BUSY  # type: ignore[attr-defined]
    error.headers = {"Retry-After": str(_RETRY_SECONDS)}  # type: ignore[attr-defined]
    return error


def watch_over() -> None:
    """Lets every page and every address of the Hub's API answer 503 with a sentence; right when called twice."""
    if getattr(BaseHandler.prepare, "is_visahubs", False):
        return
    rest = Rest()
    BaseHandler.get_current_user = _noticing(BaseHandler.get_current_user)
    BaseHandler.prepare = _refusing(BaseHandler.prepare, rest)
    BaseHandler.send_error = _translating(BaseHandler.send_error)
    BaseHandler.prepare.is_visahubs = True


def _noticing(stock: Any) -> Any:
    """The Hub takes an error of its database for "nobody is logged in"; this keeps what it really was.

    Its one session holds a connection between requests, which no pool checks: when the server was restarted meanwhile,
    the question is asked again on a new one.
    """

    @wraps(stock)
    async def get_current_user(handler: Any) -> Any:
        try:
            return await stock(handler)
        except Exception as error:
            handler.visahub_trouble = is_trouble(error)
            if not is_lost(error):
                raise
            handler.log.warning("The connection to the Hub's database was lost: %s", type(error).__name__)
        handler.db.rollback()
        del handler._jupyterhub_user
        try:
            user = await stock(handler)
        except Exception as error:
            handler.visahub_trouble = is_trouble(error)
            raise
        handler.visahub_trouble = False
        return user

    return get_current_user


def _refusing(stock: Any, rest: Rest) -> Any:
    @wraps(stock)
    async def prepare(handler: Any) -> None:
        began = time.monotonic()
        handler.visahub_trouble = False
        if rest.is_on and _has_credentials(handler):
            # Whoever is logged in is not asked for again while the error is shown.
            handler._jupyterhub_user = None
            handler.parsed_scopes = handler.expanded_scopes = set()
            raise busy()
        try:
            await stock(handler)
        except Exception as error:
            # Without a user the Hub refuses a form's token; and the scopes are asked for outside of its own care.
            if handler.visahub_trouble or is_trouble(error):
                rest.after(began)
                raise busy() from error
            raise
        if handler.visahub_trouble:
            rest.after(began)
            # What the Hub decided about an unknown user is not sent: neither a cleared cookie nor a redirect.
            handler.clear()
            raise busy()

    return prepare


def _has_credentials(handler: Any) -> bool:
    return "Authorization" in handler.request.headers or bool(handler.request.cookies)


def _translating(stock: Any) -> Any:
    """A question that fails later in a request, or a change, is told in the same way."""

    @wraps(stock)
    def send_error(handler: Any, status_code: int = 500, **kwargs: Any) -> None:
        kind, error, trace = kwargs.get("exc_info") or (None, None, None)
        if is_trouble(error):
            handler.log.warning("The Hub's database does not answer: %s", kind)
            handler.db.rollback()
            answer = busy()
            status_code, kwargs["exc_info"] = 503, (web.HTTPError, answer, trace)
        stock(handler, status_code, **kwargs)

    return send_error
