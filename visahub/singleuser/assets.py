"""How a browser gets JupyterLab's files: from the portal, where all instances share them, and compressed.

Without this each new instance is a cold cache of 6 MB. Called by the server extension.
"""

from __future__ import annotations

import asyncio
import logging
import re
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tornado.httpclient import HTTPClient, HTTPClientError
from tornado.httputil import HTTPServerRequest
from tornado.web import GZipContentEncoding

PERIOD_SECONDS = 60
_ASK_SECONDS = 2.0
# Two checks may fail: the portal was restarted.
_TRUSTED_SECONDS = 2.5 * PERIOD_SECONDS
_ENTRY = re.compile(r"main\.([0-9a-f]{8,64})\.js")


class SharedBuild:
    """Asks the portal whether it has this instance's build of JupyterLab; while it does, pages load it from there.

    Asked at each page anew: an instance outlives upgrades and restarts of the portal.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        log: logging.Logger,
        folder: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log, self._clock = log, clock
        self._entry = _entry(folder or Path(sys.prefix) / "share" / "jupyter" / "lab" / "static")
        self._asked = environ.get("VISAHUB_PORTAL", "")
        self._shown = environ.get("VISAHUB_PORTAL_PUBLIC", "")
        self._trusted_until = float("-inf")
        self._first: threading.Thread | None = None

    def begin(self) -> None:
        """Asks for the first time, beside the start of the server; the first page waits for the answer."""
        self._first = threading.Thread(target=self._ask, daemon=True)
        self._first.start()

    async def check(self) -> None:
        """Asks once more. No answer is no error: pages then load this server's own files."""
        await asyncio.to_thread(self._ask)

    def _ask(self) -> None:
        if not (self._entry and self._asked and self._shown):
            return
        url = f"{self._asked}lab/{_build(self._entry)}/{self._entry}"
        client = HTTPClient()
        try:
            client.fetch(url, method="HEAD", request_timeout=_ASK_SECONDS, follow_redirects=False)
        except (HTTPClientError, OSError, ValueError) as error:
            self._log.debug("The portal has no files of this JupyterLab: %s", error)
        else:
            self._trusted_until = self._clock() + _TRUSTED_SECONDS
        finally:
            client.close()

    def page_config(self, handler: Any, config: dict[str, Any]) -> dict[str, Any]:
        """Puts the portal's address into the configuration of a page (Jupyter Server's `page_config_hook`)."""
        if self._first is not None:
            self._first.join(_ASK_SECONDS)
            self._first = None
        is_lab = str(config.get("fullStaticUrl", "")).endswith("/static/lab")
        if not is_lab or self._clock() > self._trusted_until:
            return config
        return {**config, "fullStaticUrl": f"{self._shown}lab/{_build(self._entry)}"}


def _entry(folder: Path) -> str:
    """Gives the name of the script that a build begins with, '' where there is no build."""
    return next((path.name for path in folder.glob("main.*.js") if _ENTRY.fullmatch(path.name)), "")


def _build(entry: str) -> str:
    found = _ENTRY.fullmatch(entry)
    return found[1] if found else ""


class Packed(GZipContentEncoding):
    """Compresses what is the same for everybody; an answer with secrets and a caller's text in it stays as it is."""

    _PATHS = re.compile(r"/(static|lab/extensions|lab/api/settings|lab/api/translations|api/kernelspecs)(/|$)")

    def __init__(self, request: HTTPServerRequest) -> None:
        super().__init__(request)
        is_for_all = self._PATHS.search(request.path) is not None
        self._gzipping = self._gzipping and is_for_all and "Range" not in request.headers
