"""What every page and every answer of the portal shares: login, headers, errors and templates."""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NoReturn

from jinja2 import Environment as Jinja
from jupyterhub.services.auth import HubAuthenticated, HubOAuth, UserNotAllowed
from tornado.web import HTTPError, RequestHandler

from ..flows.privacy import Retention
from ..model.account import Account
from ..model.errors import Refused, Unavailable, VisahubError
from ..model.instance import Instance
from ..store.database import Store, ask
from .domains import Domains
from .limits import Buckets
from .metrics import REFUSALS

if TYPE_CHECKING:
    from ..flows.launch import Menu
    from .events import Watch
    from .hubapi import HubApi

log = logging.getLogger(__name__)

MAX_ARGUMENTS = 200
_POLICY = (
    # Bootstrap draws its ticks and arrows with data: images; everything else comes from here.
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, kw_only=True)
class Portal:
    """All that the handlers share; made once by `app.py`."""

    store: Store
    menu: Menu
    hub: HubApi
    auth: HubOAuth
    jinja: Jinja
    watch: Watch
    prefix: str = "/services/visahub/"
    base_url: str = "/"
    domains: Domains = field(default_factory=Domains)
    now: Callable[[], datetime] = utc_now
    keep: Retention = field(default_factory=Retention)
    searches: Buckets = field(default_factory=Buckets)

    @property
    def today(self) -> date:
        return self.now().date()

    @property
    def hub_pages(self) -> str:
        """The address of the Hub's own pages, with a slash at the end."""
        return f"{self.domains.hub}{self.base_url}hub/"


def no_such_instance() -> Refused:
    """The answer for an instance that is absent or somebody else's: the two look the same."""
    return Refused("There is no such instance. It may have been deleted.", rule="unknown-instance", status=404)


class Handler(HubAuthenticated, RequestHandler):
    """A page. Nobody gets further than `prepare` without a login, unless `access` is "open".

    `access`: "user" (an account that may enter the portal), "token" (any token that the Hub knows; the handler
    itself looks at its scopes) or "open".
    """

    access = "user"
    is_json = False

    def initialize(self, portal: Portal) -> None:
        self.portal = portal
        self.hub_auth = portal.auth
        self.account: Account | None = None

    def set_default_headers(self) -> None:
        for name, value in HEADERS.items():
            self.set_header(name, value)
        self.clear_header("Server")

    def get_current_user(self) -> None:
        """Everything is decided in `prepare`; the stock method would ask the Hub while the event loop waits."""
        return

    async def prepare(self) -> None:
        self._check_arguments()
        if self.access == "open":
            return
        # A script may read what it fetches from its own domain in this mode, too, and the stock check lets it pass:
        # no page of the portal is an image or a script, so nobody needs it.
        is_hidden = self.request.headers.get("Sec-Fetch-Mode") == "no-cors"
        model = None if is_hidden else await self.hub_auth.get_user(self, sync=False)
        if model is None:
            return self._turn_away()
        self.current_user = model
        if self.access == "token":
            return
        try:
            self.check_hub_user(model)
        except UserNotAllowed as error:
            raise Refused(
                "This login or token may not use these pages. Log in as a user of the facility.", rule="scope"
            ) from error
        account = await ask(self.portal.store.accounts.named, model["name"])
        if account is None or model["kind"] != "user":
            raise Refused(
                "The Hub knows this login, but it has no account here. Log out and log in again; "
                "if that does not help, ask the facility's user office.",
                rule="no-account",
            )
        self.account = account

    def _check_arguments(self) -> None:
        count = sum(len(values) for values in self.request.arguments.values())
        if count > MAX_ARGUMENTS or self.request.files:
            raise Refused("This form has too many fields. Fill it in again.", rule="arguments", status=422)

    def _turn_away(self) -> None:
        """Sends who is not logged in to the login, or says why not."""
        has_session = self.get_secure_cookie(self.hub_auth.cookie_name) is not None
        if self.is_json:
            raise Refused("Log in, or send a token of the Hub in the header.", rule="login", status=401)
        if self.request.method in {"GET", "HEAD"} and "HX-Request" not in self.request.headers:
            return self.redirect(self.get_login_url())
        if has_session and self.request.method not in {"GET", "HEAD"}:
            raise Refused("This page was open for too long. Reload it and try again.", rule="xsrf")
        self.set_header("HX-Refresh", "true")
        raise Refused("Your session has ended. Reload the page to log in again.", rule="login", status=401)

    @property
    def me(self) -> Account:
        """The account that asks; only where `access` is "user"."""
        if self.account is None:
            raise RuntimeError("a handler that is not for users asked for the user")
        return self.account

    @property
    def token(self) -> str:
        return str(self.hub_auth.get_token(self) or "")

    @property
    def is_htmx(self) -> bool:
        return "HX-Request" in self.request.headers

    async def own_instance(self, instance_id: str) -> Instance:
        """Gives an instance of the account; somebody else's is answered as if it were absent."""
        instance = await ask(self.portal.store.instances.get, instance_id)
        if instance is None or instance.owner_id != self.me.id or instance.phase.value == "gone":
            raise no_such_instance()
        return instance

    def render_page(self, template: str, **context: Any) -> None:
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.set_header("Vary", "HX-Request, Cookie")
        self.finish(self.text_of(template, **context))

    def text_of(self, template: str, **context: Any) -> str:
        """Renders a template with what every template knows."""
        token = self.xsrf_token if self.account else ""
        return self.portal.jinja.get_template(template).render(
            account=self.account,
            xsrf=token.decode() if isinstance(token, bytes) else token,
            now=self.portal.now(),
            today=self.portal.today,
            path=self.request.path.removeprefix(self.portal.prefix),
            hub_pages=self.portal.hub_pages,
            **context,
        )

    def send_json(self, answer: Mapping[str, Any], status: int = 200) -> None:
        self.set_status(status)
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps(answer))

    def send_error(self, status_code: int = 500, **kwargs: Any) -> None:
        """Gives errors with a sentence the status that they ask for."""
        error = _error(kwargs)
        if isinstance(error, Refused):
            REFUSALS.labels(error.rule).inc()
            status_code = error.status
        elif isinstance(error, Unavailable):
            status_code = 503
        super().send_error(status_code, **kwargs)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = _error(kwargs)
        if isinstance(error, Unavailable):
            self.set_header("Retry-After", str(error.retry_seconds))
        if status_code == 405:
            self.set_header("Allow", ", ".join(self._allowed_methods()))
        if status_code == 401 and self.is_htmx:
            self.set_header("HX-Refresh", "true")
        sentence, rule = _said(error, status_code)
        if self.is_json:
            return self.send_json({"status": status_code, "message": sentence, "rule": rule}, status_code)
        template = "_error.html" if self.is_htmx else "error.html"
        return self.render_page(template, status=status_code, sentence=sentence, rule=rule)

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """An error with a sentence is an answer, not a defect: no traceback."""
        if isinstance(value, VisahubError):
            log.info("%s %s: %s", self.request.method, self.request.path, value)
            return
        super().log_exception(typ, value, tb)

    def _allowed_methods(self) -> list[str]:
        methods = [m for m in self.SUPPORTED_METHODS if m not in {"HEAD", "OPTIONS"}]
        return [m for m in methods if getattr(type(self), m.lower()) is not getattr(RequestHandler, m.lower())]

    def refuse_unknown(self, known: set[str]) -> None:
        """Refuses query parameters that nobody reads: a misspelt filter must not look like an answer."""
        unknown = sorted(set(self.request.query_arguments) - known - {"_xsrf"})
        if unknown:
            shown = ", ".join(ascii(name[:40]) for name in unknown[:3])
            raise Refused(
                f"There is no parameter {shown}. Known are {', '.join(sorted(known)) or 'none'}.",
                rule="unknown-parameter",
                status=422,
            )


def _error(kwargs: Mapping[str, Any]) -> BaseException | None:
    info = kwargs.get("exc_info")
    return info[1] if info else None


_SENTENCES = {
    400: "This request cannot be read. Go back and try again.",
    403: "This is not allowed.",
    404: "There is no such page. It may have been moved; My instances and Experiments are a good start.",
    405: "This address does not work that way.",
}


def _said(error: BaseException | None, status: int) -> tuple[str, str]:
    if isinstance(error, VisahubError):
        return error.sentence, error.rule if isinstance(error, Refused) else "unavailable"
    if status in _SENTENCES:
        return _SENTENCES[status], HTTPStatus(status).phrase.lower().replace(" ", "-")
    reference = secrets.token_hex(4)
    log.error("reference %s: %s", reference, type(error).__name__)
    return (
        f"Something went wrong here, not with what you did. Try again; if it stays, tell the facility's support "
        f"the reference {reference}.",
        "defect",
    )


class NotFound(Handler):
    """Every address that is no page: 404 in HTML, or in JSON below api/."""

    async def prepare(self) -> None:
        self.is_json = self.request.path.startswith(self.portal.prefix + "api/")
        await super().prepare()
        if not self._finished:
            self._absent()

    def _absent(self) -> NoReturn:
        raise HTTPError(404)
