"""Where an instance's pages load JupyterLab from, and what of an instance's answers is compressed."""

from __future__ import annotations

import asyncio
import logging
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

from visahub.portal.lab import Builds, LabFile
from visahub.singleuser.assets import SharedBuild

from .conftest import Place
from .lab import TOKEN, Lab

LAB = Path(sys.prefix) / "share" / "jupyter" / "lab" / "static"
ENTRY = next(LAB.glob("main.*.js")).name
BUILD = ENTRY.split(".")[1]
OWN = {"fullStaticUrl": "/user/alice/i1/static/lab"}
SHARED = {"fullStaticUrl": f"https://hub.example/services/visahub/lab/{BUILD}"}
log = logging.getLogger(__name__)


class Files:
    """The portal's handler of JupyterLab's files, which can go away."""

    def __init__(self) -> None:
        [self._socket] = bind_sockets(0, "127.0.0.1")
        self.environ = {
            "VISAHUB_PORTAL": f"http://127.0.0.1:{self._socket.getsockname()[1]}/services/visahub/",
            "VISAHUB_PORTAL_PUBLIC": "https://hub.example/services/visahub/",
        }
        route = (r"/services/visahub/lab/([0-9a-f]+)/(.*)", LabFile, {"builds": Builds([LAB])})
        self._server = HTTPServer(Application([route]))
        self._server.add_sockets([self._socket])

    async def close(self) -> None:
        self._server.stop()
        await self._server.close_all_connections()


@pytest_asyncio.fixture(loop_scope="module")
async def files() -> AsyncIterator[Files]:
    made = Files()
    yield made
    await made.close()


async def test_pages_load_the_portals_copy_while_the_portal_has_it(files: Files) -> None:
    time = [0.0]
    shared = SharedBuild(files.environ, log, clock=lambda: time[0])
    assert shared.page_config(None, OWN) == OWN
    await shared.check()
    assert shared.page_config(None, OWN) == SHARED
    assert shared.page_config(None, {"fullStaticUrl": "/user/alice/i1/static/notebook"})["fullStaticUrl"].endswith(
        "book"
    )
    # The portal goes: its last word holds for a restart's time, then pages load this server's own files again.
    await files.close()
    time[0] = 100.0
    await shared.check()
    assert shared.page_config(None, OWN) == SHARED
    time[0] = 200.0
    await shared.check()
    assert shared.page_config(None, OWN) == OWN


async def test_another_build_than_the_portals_stays_with_the_instance(files: Files, tmp_path: Path) -> None:
    (tmp_path / "main.0123456789abcdef.js").write_text("")
    shared = SharedBuild(files.environ, log, folder=tmp_path)
    await shared.check()
    assert shared.page_config(None, OWN) == OWN


@pytest.mark.parametrize("missing", ["VISAHUB_PORTAL", "VISAHUB_PORTAL_PUBLIC"])
async def test_without_a_portal_everything_stays_with_the_instance(files: Files, missing: str) -> None:
    shared = SharedBuild({**files.environ, missing: ""}, log)
    await shared.check()
    assert shared.page_config(None, OWN) == OWN


@pytest.mark.services
async def test_a_real_page_names_the_portal_and_the_rest_comes_compressed(files: Files, place: Place) -> None:
    place.environ.update(files.environ)
    lab = Lab(place)
    try:
        # Its loop answers while ours, which plays the portal, goes on.
        await asyncio.to_thread(lab.start)
        async with httpx.AsyncClient(base_url=lab.address, headers={"Authorization": f"token {TOKEN}"}) as client:
            page = await client.get("/lab", timeout=60)
            assert f'"fullStaticUrl": "{SHARED["fullStaticUrl"]}"' in page.text
            assert re.search(rf'src="{re.escape(SHARED["fullStaticUrl"])}/{re.escape(ENTRY)}', page.text)
            assert "Content-Encoding" not in page.headers
            settings = await client.get("/lab/api/settings", timeout=60)
            assert settings.headers["Content-Encoding"] == "gzip"
            own = await client.get(f"/static/lab/{ENTRY}")
            assert own.headers["Content-Encoding"] == "gzip" and own.content == (LAB / ENTRY).read_bytes()
            part = await client.get(f"/static/lab/{ENTRY}", headers={"Range": "bytes=0-9"})
            assert part.status_code == 206 and part.content == (LAB / ENTRY).read_bytes()[:10]
            contents = await client.get("/api/contents")
            assert "Content-Encoding" not in contents.headers
    finally:
        await asyncio.to_thread(lab.stop)
