"""The server extension of an instance: the desktop's websocket, its activity, the start page. Loaded by Jupyter Server.

The websocket is ours because jupyter-server-proxy does not wait for a slow reader: 150 screens that nobody reads
would take more than 1 GB there.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from typing import Any

from jupyter_core.utils import ensure_async
from jupyter_server.auth.decorator import authorized, ws_authenticated
from jupyter_server.base.handlers import APIHandler, JupyterHandler
from jupyter_server.base.websocket import WebSocketMixin
from jupyter_server.utils import url_path_join
from tornado.ioloop import PeriodicCallback
from tornado.iostream import StreamClosedError
from tornado.web import HTTPError, authenticated
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from visahub.model.errors import VisahubError

from . import activity, assets, guard, runtime, start
from .patience import Patience

_CHUNK = 1 << 16
_MAX_MESSAGE = 2 << 20
# Codes of ours (4000 and more) tell the page why; the text is for the log of the browser.
_CLOSED_BY_DESKTOP = 4001
_NO_DESKTOP = 4002


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "visahub.singleuser.extension"}]


def _load_jupyter_server_extension(app: Any) -> None:
    guard.stand()
    base = app.web_app.settings["base_url"]
    app.web_app.add_handlers(
        ".*$",
        [
            (url_path_join(base, "visahub", "desktop", "socket"), DesktopSocket),
            (url_path_join(base, "visahub", "activity"), ActivityHandler),
        ],
    )
    # Absent in a server that no Hub has started.
    hub_auth = getattr(app.identity_provider, "hub_auth", None)
    if hub_auth is not None:
        hub_auth._check_hub_authorization = Patience(hub_auth._check_hub_authorization)
    start.copy_notebook(os.environ, Path(app.root_dir))
    reporter = activity.Reporter(app.web_app, app.log, os.environ)
    # The server's loop does not run yet; it starts the callback and ends it with itself.
    PeriodicCallback(reporter.report, activity.PERIOD_SECONDS * 1000, jitter=0.1).start()
    shared = assets.SharedBuild(os.environ, app.log)
    app.web_app.settings["page_config_hook"] = shared.page_config
    app.web_app.add_transform(assets.Packed)
    shared.begin()
    PeriodicCallback(shared.check, assets.PERIOD_SECONDS * 1000, jitter=0.1).start()


class ActivityHandler(APIHandler):
    """Says when the desktop and JupyterLab were last used. Asking is not using."""

    auth_resource = "server"

    def update_api_activity(self) -> None:
        """Leaves the server's last activity as it is."""

    @authenticated
    @authorized
    async def get(self) -> None:
        self.finish(await activity.seen(self.application, os.environ))


class DesktopSocket(WebSocketMixin, WebSocketHandler, JupyterHandler):
    """Joins a browser with the desktop's gate. Every write is awaited, in both directions."""

    # Whoever may use a terminal may use the desktop.
    auth_resource = "terminals"
    _reader: asyncio.StreamReader
    _writer: asyncio.StreamWriter | None = None
    _task: asyncio.Task[None] | None = None

    @property
    def max_message_size(self) -> int:
        return _MAX_MESSAGE

    @ws_authenticated
    async def get(self, *args: Any, **kwargs: Any) -> None:
        allowed = self.authorizer.is_authorized(self, self.current_user, "execute", self.auth_resource)
        if not await ensure_async(allowed):
            raise HTTPError(403)
        await super().get(*args, **kwargs)

    async def open(self, *args: Any, **kwargs: Any) -> None:
        """Starts the desktop if needed and opens the gate; tornado reads no message before this is done."""
        super().open(*args, **kwargs)
        try:
            self._reader, self._writer = await self._gate()
        except (VisahubError, OSError) as error:
            self.log.error("The desktop could not be reached: %s", error)
            self.close(_NO_DESKTOP, "The desktop could not be started.")
            return
        self._task = asyncio.create_task(self._to_browser())

    async def _gate(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        found = runtime.find(os.environ)
        with contextlib.suppress(OSError):
            return await asyncio.open_unix_connection(found.gate, limit=_CHUNK)
        await asyncio.to_thread(runtime.ensure, found, os.environ)
        return await asyncio.open_unix_connection(found.gate, limit=_CHUNK)

    async def on_message(self, message: str | bytes) -> None:
        """Passes on what the browser sends; the next message is read when this one has gone."""
        if isinstance(message, str) or self._writer is None:
            self.close(_CLOSED_BY_DESKTOP, "Only binary messages are spoken here.")
            return
        try:
            self._writer.write(message)
            await self._writer.drain()
        except OSError:
            self.close(_CLOSED_BY_DESKTOP, "The desktop has closed the connection.")

    def on_close(self) -> None:
        super().on_close()
        if self._task is not None:
            self._task.cancel()
        if self._writer is not None:
            with contextlib.suppress(OSError, RuntimeError):
                self._writer.transport.abort()

    async def _to_browser(self) -> None:
        try:
            while data := await self._reader.read(_CHUNK):
                await self.write_message(data, binary=True)
        except (WebSocketClosedError, StreamClosedError):
            return
        except OSError as error:
            self.log.info("The desktop's connection ended: %s", error)
        self.close(_CLOSED_BY_DESKTOP, "The desktop has closed the connection.")
