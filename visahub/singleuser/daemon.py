"""The desktop daemon: one process per instance that outlives the Jupyter server. Started by `desktop.py`."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Mapping

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_unix_socket

from . import pages, processes, runtime
from .display import Display
from .gate import Gate
from .rfb import Role

log = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0
_MAX_BODY = 10_000


async def run(environ: Mapping[str, str]) -> None:
    """Runs until it is told to end, or its private directory goes; leaves nothing behind."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    found = runtime.find(environ)
    with runtime.held(found) as is_mine:
        if not is_mine:
            log.info("Another daemon serves %s", found.folder)
            return
        processes.adopt_orphans()
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, ended.set)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        display = Display(found, environ)
        gate = Gate(lambda: display.socket)
        await gate.listen(found.gate, Role.CONTROLLER)
        await gate.listen_for_browsers(found.web, Role.CONTROLLER)
        server = HTTPServer(pages.application(display, gate), max_body_size=_MAX_BODY, max_header_size=65536)
        server.add_socket(bind_unix_socket(str(found.pages), mode=0o600))
        display.start()
        log.info("Serving %s", found.folder)
        try:
            await _watch(found, display, ended)
        finally:
            server.stop()
            await gate.close()
            await display.stop()
            for path in (found.pages, found.gate, found.web, found.cookie):
                path.unlink(missing_ok=True)
            log.info("Ended")


async def _watch(found: runtime.Runtime, display: Display, ended: asyncio.Event) -> None:
    while not ended.is_set():
        if runtime.read_pid(found) != os.getpid():
            log.info("The directory of this desktop is gone")
            return
        processes.reap(display.children)
        try:
            await asyncio.wait_for(ended.wait(), _LOOK_SECONDS)
        except TimeoutError:
            continue
