"""The server extension of an instance: the desktop's websocket, its activity, the start page. Loaded by Jupyter Server.

The websocket is ours because jupyter-server-proxy does not wait for a slow reader: 150 screens that nobody reads
would take more than 1 GB there.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from jupyter_core.utils import ensure_async
from jupyter_server.auth.decorator import authorized, ws_authenticated
from jupyter_server.base.handlers import APIHandler, JupyterHandler
from jupyter_server.base.websocket import WebSocketMixin
from jupyter_server.utils import url_path_join
from tornado.ioloop import IOLoop, PeriodicCallback
from tornado.iostream import IOStream, SSLIOStream, StreamClosedError
from tornado.web import HTTPError, authenticated
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from visahub.model.errors import VisahubError

from . import activity, assets, guard, handover, runtime, start
from .link import Link
from .patience import Patience
from .websocket import CLOSED_BY_DESKTOP, NO_DESKTOP, goodbye

_CHUNK = 1 << 18
_MAX_MESSAGE = 2 << 20
_NOT_STARTED = "The desktop could not be started. It is tried again."
_Answer = TypeVar("_Answer")


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
            (url_path_join(base, *start.ADDRESS.split("/")), StartHandler, {"home": Path(app.root_dir)}),
        ],
    )
    # Absent in a server that no Hub has started.
    hub_auth = getattr(app.identity_provider, "hub_auth", None)
    if hub_auth is not None:
        hub_auth._check_hub_authorization = Patience(hub_auth._check_hub_authorization)
    IOLoop.current().add_callback(_end_in_turn, app)
    start.copy_notebook(os.environ, Path(app.root_dir))
    reporter = activity.Reporter(app.web_app, app.log, os.environ)
    # The server's loop does not run yet; it starts the callback and ends it with itself.
    PeriodicCallback(reporter.report, activity.PERIOD_SECONDS * 1000, jitter=0.1).start()
    shared = assets.SharedBuild(os.environ, app.log)
    app.web_app.settings["page_config_hook"] = shared.page_config
    app.web_app.add_transform(assets.Packed)
    shared.begin()
    PeriodicCallback(shared.check, assets.PERIOD_SECONDS * 1000, jitter=0.1).start()


def _end_in_turn(app: Any) -> None:
    """Ends the server between two steps of its loop.

    Jupyter's own handler of SIGTERM writes to the log first, also amid another line: then that fails, and the signal
    is lost. About one stop in ten waited for its end by SIGKILL.
    """
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, app.stop)


class StartHandler(JupyterHandler):
    """Leads to the start page. The server leads everybody here, and nobody further who is not logged in."""

    auth_resource = "server"

    def initialize(self, home: Path) -> None:
        self._home = home

    @authenticated
    @authorized
    def get(self) -> None:
        self.redirect(url_path_join(self.base_url, start.page(os.environ, self._home)))


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
    """Lets a browser in and hands its websocket over to the desktop daemon, whose gate speaks with it from then on.

    An encrypted connection cannot be handed over: then this joins the two, and every write is awaited.
    """

    # Whoever may use a terminal may use the desktop.
    auth_resource = "terminals"
    _gate: Link | None = None
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
        """Starts the desktop if needed; tornado reads no message before this is done."""
        super().open(*args, **kwargs)
        stream = self.ws_connection.stream if self.ws_connection else None
        if isinstance(stream, IOStream) and not isinstance(stream, SSLIOStream):
            await self._hand_over(stream)
            return
        try:
            self._gate = await _with_desktop(lambda found: Link.to(found.gate))
        except (VisahubError, OSError) as error:
            self.log.error("The desktop could not be reached: %s", error)
            self.close(NO_DESKTOP, _NOT_STARTED)
            return
        self._task = asyncio.create_task(self._to_browser(self._gate))

    async def _hand_over(self, stream: IOStream) -> None:
        # What the browser sends from now on is for the daemon to read, which gets its own descriptor.
        IOLoop.current().remove_handler(stream.socket)
        try:
            await _with_desktop(lambda found: asyncio.to_thread(handover.give, found.web, stream.socket))
        except (VisahubError, OSError) as error:
            self.log.error("The desktop could not be reached: %s", error)
            with contextlib.suppress(OSError):
                stream.socket.send(goodbye(NO_DESKTOP, _NOT_STARTED))
        finally:
            stream.close()

    async def on_message(self, message: str | bytes) -> None:
        """Passes on what the browser sends; the next message is read when this one has gone."""
        if isinstance(message, str) or self._gate is None:
            self.close(CLOSED_BY_DESKTOP, "Only binary messages are spoken here.")
            return
        try:
            await self._gate.write(message)
        except OSError:
            self.close(CLOSED_BY_DESKTOP, "The desktop has closed the connection.")

    def on_close(self) -> None:
        super().on_close()
        if self._gate is not None:
            # The task that reads sees the end, too.
            self._gate.hang_up()

    async def _to_browser(self, gate: Link) -> None:
        buffer = memoryview(bytearray(_CHUNK))
        try:
            while count := await gate.read_into(buffer):
                await self.write_message(bytes(buffer[:count]), binary=True)
        except (WebSocketClosedError, StreamClosedError, OSError) as error:
            self.log.info("The desktop's connection ended: %s", type(error).__name__)
        finally:
            gate.close()
        self.close(CLOSED_BY_DESKTOP, "The desktop has closed the connection.")


async def _with_desktop(act: Callable[[runtime.Runtime], Awaitable[_Answer]]) -> _Answer:
    """Does something with the desktop daemon, which is started when it does not run."""
    found = runtime.find(os.environ)
    with contextlib.suppress(OSError):
        return await act(found)
    await asyncio.to_thread(runtime.ensure, found, os.environ)
    return await act(found)
