"""When an instance was last used, and telling the portal so. Used by the server extension.

A key press or pointer movement on the desktop counts; an open tab does not.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from tornado.httpclient import AsyncHTTPClient, HTTPClientError
from tornado.web import Application

from visahub.model.errors import VisahubError

from . import runtime

PERIOD_SECONDS = 60
_REQUEST_SECONDS = 10.0
_MAX_ANSWER = 65536


class Reporter:
    """Tells Jupyter's own activity about the desktop, and the portal (VISAHUB_PORTAL) about both."""

    def __init__(self, application: Application, log: logging.Logger, environ: Mapping[str, str]) -> None:
        self._application = application
        self._log = log
        self._environ = environ

    async def report(self) -> None:
        """Reports once. Failure is no error: the portal may be restarting, and the next report says the same."""
        now = await seen(self._application, self._environ)
        portal, instance = self._environ.get("VISAHUB_PORTAL"), self._environ.get("VISAHUB_INSTANCE")
        token = self._environ.get("JUPYTERHUB_API_TOKEN")
        if not (portal and instance and token):
            return
        body = json.dumps({"last_input": now["last_input"], "last_activity": now["last_activity"]})
        try:
            await AsyncHTTPClient().fetch(
                f"{portal.rstrip('/')}/api/instances/{quote(instance, safe='')}/activity",
                method="POST",
                headers={"Authorization": f"token {token}", "Content-Type": "application/json"},
                body=body,
                request_timeout=_REQUEST_SECONDS,
                follow_redirects=False,
            )
        except (HTTPClientError, OSError, ValueError) as error:
            self._log.debug("The portal was not told of the activity: %s", error)


async def seen(application: Application, environ: Mapping[str, str]) -> dict[str, Any]:
    """Gives what is known now; times are UTC in ISO 8601, None when there is none."""
    desktop = await desktop_status(environ)
    last_input = _moment(desktop.get("last_input"))
    times = application.settings.get("last_activity_times")
    if last_input is not None and isinstance(times, dict):
        times["visahub_desktop"] = last_input
    kernels = application.settings["kernel_manager"]
    busy = [kernel for kernel in kernels.list_kernels() if kernel.get("execution_state") == "busy"]
    last_activity = application.last_activity()  # type: ignore[attr-defined]
    return {
        "last_input": last_input.isoformat() if last_input else None,
        "last_activity": last_activity.isoformat() if last_activity else None,
        "connections": int(desktop.get("connections", 0)),
        "kernels_busy": len(busy),
        "desktop": desktop.get("state", "stopped"),
    }


async def desktop_status(environ: Mapping[str, str]) -> dict[str, Any]:
    """Asks the desktop daemon, if it runs; gives {} when it does not or does not answer."""
    try:
        found = runtime.find(environ)
        if runtime.running(found) is None:
            return {}
        async with asyncio.timeout(_REQUEST_SECONDS):
            reader, writer = await asyncio.open_unix_connection(found.pages)
            try:
                writer.write(b"GET /status HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                answer = await reader.read(_MAX_ANSWER)
                while more := await reader.read(_MAX_ANSWER):
                    answer += more
                    if len(answer) > _MAX_ANSWER:
                        return {}
            finally:
                writer.close()
        status = json.loads(answer.partition(b"\r\n\r\n")[2])
    except (VisahubError, OSError, TimeoutError, ValueError):
        return {}
    return status if isinstance(status, dict) else {}


def _moment(seconds: object) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if isinstance(seconds, float | int) else None
