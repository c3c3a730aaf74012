"""Telling the portal when an instance was last used: the owner's token, short, and silent when it fails."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_unix_socket
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler

from visahub.singleuser import activity, runtime
from visahub.singleuser.display import Display
from visahub.singleuser.gate import Gate
from visahub.singleuser.pages import application

received: list[tuple[str, str, dict[str, Any]]] = []


class Portal(RequestHandler):
    """Keeps what it is told."""

    def post(self, instance: str) -> None:
        received.append((instance, self.request.headers["Authorization"], json.loads(self.request.body)))


class Kernels:
    """Two kernels, one of them busy."""

    def list_kernels(self) -> list[dict[str, str]]:
        return [{"execution_state": "busy"}, {"execution_state": "idle"}]


class Server(Application):
    """As much of Jupyter's web application as is asked."""

    def last_activity(self) -> Any:
        return max(self.settings["last_activity_times"].values(), default=None)


@pytest.fixture
def server() -> Server:
    return Server([], kernel_manager=Kernels(), last_activity_times={})


@pytest.fixture
async def portal() -> AsyncIterator[str]:
    received.clear()
    made = HTTPServer(Application([(r"/services/visahub/api/instances/([^/]+)/activity", Portal)]))
    sock, port = bind_unused_port()
    made.add_socket(sock)
    yield f"http://127.0.0.1:{port}/services/visahub/"
    made.stop()


async def test_use_is_told_with_the_owners_token(tmp_path: Path, server: Server, portal: str) -> None:
    environ = {
        "VISAHUB_RUNTIME": str(tmp_path),
        "VISAHUB_PORTAL": portal,
        "VISAHUB_INSTANCE": "i123",
        "JUPYTERHUB_API_TOKEN": "secret",
    }
    found = runtime.find(environ)
    gate = Gate(lambda: None)
    gate.last_input = 1_800_000_000.5
    pages = HTTPServer(application(Display(found, environ), gate))
    pages.add_socket(bind_unix_socket(str(found.pages)))
    with runtime.held(found):
        await activity.Reporter(server, logging.getLogger(), environ).report()
        seen = await activity.seen(server, environ)
    pages.stop()
    moment = "2027-01-15T08:00:00.500000+00:00"
    assert received == [("i123", "token secret", {"last_input": moment, "last_activity": moment})]
    assert seen["kernels_busy"] == 1


@pytest.mark.parametrize("missing", ["VISAHUB_PORTAL", "VISAHUB_INSTANCE", "JUPYTERHUB_API_TOKEN"])
async def test_without_a_portal_nothing_is_sent(tmp_path: Path, server: Server, portal: str, missing: str) -> None:
    environ = {
        "VISAHUB_RUNTIME": str(tmp_path),
        "VISAHUB_PORTAL": portal,
        "VISAHUB_INSTANCE": "i123",
        "JUPYTERHUB_API_TOKEN": "secret",
    }
    del environ[missing]
    await activity.Reporter(server, logging.getLogger(), environ).report()
    assert received == []


@pytest.mark.parametrize("portal_url", ["http://127.0.0.1:9", "http://", "nonsense", "http://127.0.0.1:9/x y"])
async def test_a_portal_that_does_not_answer_is_no_error(tmp_path: Path, server: Server, portal_url: str) -> None:
    environ = {
        "VISAHUB_RUNTIME": str(tmp_path),
        "VISAHUB_PORTAL": portal_url,
        "VISAHUB_INSTANCE": "i123",
        "JUPYTERHUB_API_TOKEN": "secret",
    }
    await activity.Reporter(server, logging.getLogger(), environ).report()


async def test_without_a_desktop_there_is_no_input(tmp_path: Path, server: Server) -> None:
    seen = await activity.seen(server, {"VISAHUB_RUNTIME": str(tmp_path)})
    assert seen["last_input"] is None
    assert seen["desktop"] == "stopped"
