"""The desktop's pages, on the daemon's unix socket: the viewer's page, noVNC as it was published, and the state."""

from __future__ import annotations

import json
import os
from typing import Any

from tornado import template, web

from visahub.model.errors import VisahubError
from visahub.model.request import KEYBOARDS

from .display import Display, State
from .gate import Gate, speaks
from .runtime import share

_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        # noVNC draws the remote pointer and JPEG rectangles from data: and blob: pictures.
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        # JupyterLab shows the page in a tab of its own.
        "frame-ancestors 'self'",
    )
)


_SILENT = (
    "The screen of this desktop does not answer. Its programs were not ended: wait a moment. If it stays so, save your "
    "work in JupyterLab and restart the instance."
)


def application(display: Display, gate: Gate) -> web.Application:
    """Builds the web application; who may reach it is decided by the unix socket and by Jupyter Server before it."""
    parts: dict[str, Any] = {"display": display, "gate": gate}
    novnc = str(share("node_modules", "@novnc", "novnc"))
    return web.Application(
        [
            (r"/", _Page, parts),
            (r"/status", _Status, parts),
            (r"/keyboard", _Keyboard, parts),
            (r"/start", _Start, parts),
            (r"/static/(desktop\.(?:js|css|svg))", _Files, {"path": str(share("static"))}),
            (r"/novnc/[^/]+/((?:core|vendor)/.+\.js|LICENSE\.txt)", _Files, {"path": novnc}),
        ],
        log_function=_no_log,
    )


def novnc_version() -> str:
    """Gives noVNC's version, '' when it is not installed. It is part of its address, so that browsers may keep it."""
    try:
        return str(json.loads(share("node_modules", "@novnc", "novnc", "package.json").read_text())["version"])
    except (OSError, ValueError, KeyError):
        return ""


def status(display: Display, gate: Gate) -> dict[str, Any]:
    """Says how the desktop is."""
    return {
        "state": display.state.value,
        "sentence": display.sentence,
        "keyboard": display.keyboard,
        "follows_window": display.follows_window,
        "connections": gate.connections,
        "last_input": gate.last_input,
    }


def _no_log(handler: web.RequestHandler) -> None:
    """The Jupyter server in front writes the log of requests."""


class _Handler(web.RequestHandler):
    def initialize(self, display: Display, gate: Gate) -> None:
        self.display = display
        self.gate = gate

    def set_default_headers(self) -> None:
        _set_headers(self)
        self.set_header("Cache-Control", "no-store")

    def prepare(self) -> None:
        # Jupyter Server does not check what it only passes on. A page of another origin cannot set this header.
        if self.request.method not in {"GET", "HEAD"} and self.request.headers.get("X-Visahub") != "1":
            raise web.HTTPError(403)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        self.finish({"sentence": "The desktop could not do this. Reload the page and try again."})


class _Page(_Handler):
    def get(self) -> None:
        # Read each time: the file is small, and an update shows without a restart.
        page = template.Template(share("templates", "desktop", "desktop.html").read_text(encoding="utf-8"))
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.finish(
            page.generate(
                novnc=novnc_version(),
                keyboards=KEYBOARDS,
                keyboard=self.display.keyboard,
                follows_window=self.display.follows_window,
                name=os.environ.get("VISAHUB_NAME", ""),
                hub=os.environ.get("VISAHUB_HUB", ""),
            )
        )


class _Status(_Handler):
    async def get(self) -> None:
        said = status(self.display, self.gate)
        if said["state"] == State.RUNNING and not await speaks(self.display.socket):
            said["sentence"] = _SILENT
        self.finish(said)


class _Keyboard(_Handler):
    async def post(self) -> None:
        try:
            await self.display.set_keyboard(str(_json(self.request.body).get("layout", "")))
        except VisahubError as error:
            self.set_status(422)
            self.finish({"sentence": error.sentence})
        else:
            self.finish(status(self.display, self.gate))


class _Start(_Handler):
    def post(self) -> None:
        self.display.start()
        self.finish(status(self.display, self.gate))


class _Files(web.StaticFileHandler):
    def set_extra_headers(self, path: str) -> None:
        _set_headers(self)
        is_versioned = self.request.path.startswith("/novnc/")
        self.set_header("Cache-Control", "private, max-age=31536000, immutable" if is_versioned else "no-cache")


def _set_headers(handler: web.RequestHandler) -> None:
    handler.set_header("Content-Security-Policy", _POLICY)
    handler.set_header("X-Content-Type-Options", "nosniff")
    handler.set_header("Referrer-Policy", "same-origin")
    handler.clear_header("Server")


def _json(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except ValueError:
        value = None
    return value if isinstance(value, dict) else {}
