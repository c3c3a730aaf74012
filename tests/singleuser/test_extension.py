"""The server extension in a real JupyterLab: who may open the desktop, and what a slow reader costs."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import struct
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPRequest
from tornado.websocket import WebSocketClientConnection, websocket_connect

from visahub.singleuser import runtime
from visahub.singleuser.gate import FULL, MAX_CONNECTIONS
from visahub.singleuser.websocket import TOO_MANY

from . import rfb_client as client
from .conftest import Place, wait_for
from .lab import TOKEN, Lab, running

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def lab(place: Place) -> Iterator[Lab]:
    with running(place) as made:
        yield made


opened: list[WebSocketClientConnection] = []


@pytest.fixture(autouse=True)
async def hung_up() -> AsyncIterator[None]:
    """Ends the connections of each test."""
    yield
    for connection in opened:
        connection.close()
    opened.clear()
    await asyncio.sleep(0.3)


async def open_socket(lab: Lab, **headers: str) -> WebSocketClientConnection:
    address = lab.address.replace("http", "ws") + "/visahub/desktop/socket"
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    connection = await websocket_connect(HTTPRequest(address, headers=given, request_timeout=60, validate_cert=False))
    opened.append(connection)
    return connection


async def shake_hands(connection: WebSocketClientConnection) -> bytes:
    """Speaks RFB over the websocket; gives what followed the greeting."""
    seen = b""
    for wanted, answer in ((12, b"RFB 003.008\n"), (14, b"\1"), (18, b"\1"), (42, b"")):
        while len(seen) < wanted:
            data = await asyncio.wait_for(connection.read_message(), 60)
            assert isinstance(data, bytes)
            seen += data
        if answer:
            await connection.write_message(answer, binary=True)
    return seen[18:]


async def test_nobody_enters_without_a_login(lab: Lab) -> None:
    for headers in ({}, {"Authorization": "token wrong"}):
        with pytest.raises(HTTPClientError) as error:
            await open_socket(lab, **headers)
        assert error.value.code == 403
    for path in ("/visahub/activity", "/desktop/status", "/desktop/static/desktop.js"):
        answer = lab.get(path, token="")
        assert answer is None or b"last_input" not in answer
        assert answer is None or b"RFB" not in answer


async def test_a_page_of_another_origin_is_refused(lab: Lab) -> None:
    # Browsers send the cookie with any page's websocket; the origin tells them apart.
    cookie = await login_cookie(lab)
    with pytest.raises(HTTPClientError) as error:
        await open_socket(lab, Cookie=cookie, Origin="https://evil.example")
    assert error.value.code == 403
    await open_socket(lab, Cookie=cookie, Origin=lab.address)


async def login_cookie(lab: Lab) -> str:
    response = await AsyncHTTPClient().fetch(f"{lab.address}/api/status?token={TOKEN}")
    return "; ".join(value.split(";")[0] for value in response.headers.get_list("Set-Cookie"))


async def test_the_desktop_is_reached_and_its_use_is_seen(lab: Lab) -> None:
    connection = await open_socket(lab, Authorization=f"token {TOKEN}")
    init = await shake_hands(connection)
    assert struct.unpack(">HH", init[:4]) == (1280, 800)
    before = activity(lab)
    assert before["connections"] == 1
    assert before["last_input"] is None
    assert before["desktop"] == "running"
    await connection.write_message(client.key(0xFFE1, down=True) + client.key(0xFFE1, down=False), binary=True)
    await client.until(lambda: activity(lab)["last_input"] is not None)
    # Jupyter's own culling sees it, too.
    assert activity(lab)["last_activity"] >= activity(lab)["last_input"]
    connection.close()
    await client.until(lambda: activity(lab)["connections"] == 0)


def activity(lab: Lab) -> dict[str, object]:
    answer = lab.get("/visahub/activity")
    assert answer
    seen: dict[str, object] = json.loads(answer)
    return seen


async def test_text_and_long_messages_close(lab: Lab) -> None:
    for message, binary in (("hello", False), (bytes(3 << 20), True)):
        connection = await open_socket(lab, Authorization=f"token {TOKEN}")
        await connection.write_message(message, binary=binary)
        seen: object = b""
        while seen is not None:
            seen = await asyncio.wait_for(connection.read_message(), 30)
        assert connection.close_code in {1009, 4001, None}


async def test_a_browser_that_never_reads_costs_no_memory(lab: Lab) -> None:
    daemon = runtime.running(lab.place.runtime)
    reader, writer = await asyncio.open_connection("127.0.0.1", lab.port, limit=4096)
    key = base64.b64encode(os.urandom(16)).decode()
    writer.write(
        f"GET /visahub/desktop/socket HTTP/1.1\r\nHost: 127.0.0.1:{lab.port}\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
        f"Authorization: token {TOKEN}\r\n\r\n".encode()
    )
    assert b" 101 " in await reader.readline()
    await reader.readuntil(b"\r\n\r\n")
    for answer in (b"RFB 003.008\n", b"\1", b"\1"):
        writer.write(frame(answer))
    await asyncio.sleep(2)
    daemon = daemon or runtime.running(lab.place.runtime)
    assert daemon
    before = [resident(pid) for pid in (lab.pid, daemon)]
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    # 150 whole screens without compression are 600 MB.
    writer.write(frame(client.set_encodings(0)) + frame(client.update_request(1280, 800)) * 150)
    most = before
    for _ in range(40):
        await asyncio.sleep(0.1)
        most = [max(old, resident(pid)) for old, pid in zip(most, (lab.pid, daemon), strict=True)]
    assert activity(lab)["connections"] == 1
    grown = [after - old for after, old in zip(most, before, strict=True)]
    writer.transport.abort()
    assert max(grown) < 10 * 1024, f"{grown} KiB (server, daemon)"


def frame(data: bytes) -> bytes:
    """One binary websocket message of a client, masked with zeros."""
    length = bytes([0x80 | len(data)]) if len(data) < 126 else b"\xfe" + struct.pack(">H", len(data))
    return b"\x82" + length + bytes(4) + data


def resident(pid: int) -> int:
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS:"))


def test_the_desktop_survives_the_jupyter_server(lab: Lab) -> None:
    assert lab.get("/desktop/status")
    daemon = runtime.running(lab.place.runtime)
    assert daemon
    lab.stop()
    assert runtime.running(lab.place.runtime) == daemon
    lab.start()
    answer = lab.get("/desktop/status")
    assert answer
    assert json.loads(answer)["state"] == "running"
    assert runtime.running(lab.place.runtime) == daemon


def test_a_desktop_that_was_ended_is_started_again(lab: Lab) -> None:
    assert lab.get("/desktop/status")
    before = runtime.running(lab.place.runtime)
    lab.place.run(sys.executable, "-m", "visahub.singleuser.desktop", "stop")
    wait_for(lambda: runtime.running(lab.place.runtime) not in {None, before}, 30)
    wait_for(lambda: b'"running"' in (lab.get("/desktop/status") or b""), 30)


def test_the_keyboard_is_changed_from_our_page_only(lab: Lab) -> None:

    assert lab.get("/desktop/status")
    body = json.dumps({"layout": "de"}).encode()
    headers = {"Authorization": f"token {TOKEN}", "Content-Type": "application/json"}
    request = urllib.request.Request(lab.address + "/desktop/keyboard", data=body, headers=headers)
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(request, timeout=30)
    assert error.value.code == 403
    error.value.close()
    wait_for(lambda: b'"running"' in (lab.get("/desktop/status") or b""), 30)
    request = urllib.request.Request(
        lab.address + "/desktop/keyboard", data=body, headers={**headers, "X-Visahub": "1"}
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        assert json.loads(response.read())["keyboard"] == "de"
    request = urllib.request.Request(
        lab.address + "/desktop/keyboard", data=b'{"layout": "xx; rm"}', headers={**headers, "X-Visahub": "1"}
    )
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(request, timeout=30)
    assert error.value.code == 422
    error.value.close()


def test_the_page_has_a_strict_policy_and_no_script_in_it(lab: Lab) -> None:

    request = urllib.request.Request(lab.address + "/desktop/", headers={"Authorization": f"token {TOKEN}"})
    with urllib.request.urlopen(request, timeout=60) as response:
        policy = response.headers["Content-Security-Policy"]
        page = response.read().decode()
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    assert "<script>" not in page
    assert "style=" not in page
    assert " on" not in {word[:3] for word in page.split("<")}
    licence = lab.get("/desktop/novnc/1/LICENSE.txt")
    assert licence
    assert b"MPL" in licence or b"Mozilla" in licence
    for path in ("/desktop/novnc/1/package.json", "/desktop/static/visahub.css", "/desktop/static/..%2fdesktop.js"):
        assert lab.get(path) is None


def test_the_start_notebook_is_in_the_home(lab: Lab) -> None:
    assert (lab.place.home / "start.ipynb").exists() or not Path(lab.place.home).exists()


async def test_limit_of_sockets_is_told_in_the_close_frame(lab: Lab) -> None:
    sockets = [await open_socket(lab, Authorization=f"token {TOKEN}") for _ in range(MAX_CONNECTIONS)]
    for connection in sockets:
        await shake_hands(connection)
    assert activity(lab)["connections"] == MAX_CONNECTIONS
    one_more = await open_socket(lab, Authorization=f"token {TOKEN}")
    assert await asyncio.wait_for(one_more.read_message(), 30) is None
    assert (one_more.close_code, one_more.close_reason) == (TOO_MANY, FULL)


async def test_a_restarted_server_does_not_interrupt_the_desktop(lab: Lab) -> None:
    connection = await open_socket(lab, Authorization=f"token {TOKEN}")
    await shake_hands(connection)
    await asyncio.to_thread(lab.stop)
    await connection.write_message(client.set_encodings(0) + client.update_request(16, 16), binary=True)
    assert await asyncio.wait_for(connection.read_message(), 30)
    await asyncio.to_thread(lab.start)
    assert activity(lab)["connections"] == 1


def certificate_of(place: Place) -> Path:
    """Makes a certificate of our own, with its key."""
    path = place.home / "certificate.pem"
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    done = place.run(*words, "-keyout", str(path), "-out", str(place.home / "only.pem"))
    assert done.returncode == 0, done.stderr
    path.write_text(path.read_text() + (place.home / "only.pem").read_text())
    return path


async def test_x22_an_encrypted_connection_is_joined_and_a_browser_that_never_reads_costs_nothing(
    own_place: Place,
) -> None:
    """It cannot be handed over, since the keys are in the server's process."""
    with running(own_place, await asyncio.to_thread(certificate_of, own_place)) as lab:
        connection = await open_socket(lab, Authorization=f"token {TOKEN}")
        await shake_hands(connection)
        await connection.write_message(client.set_encodings(0) + client.update_request(64, 64), binary=True)
        picture = b""
        while len(picture) < 64 * 64 * 4:
            data = await asyncio.wait_for(connection.read_message(), 30)
            assert isinstance(data, bytes)
            picture += data
        before = resident(lab.pid)
        # tornado's client stops reading when nobody takes its messages.
        for _ in range(150):
            await connection.write_message(client.update_request(1280, 800), binary=True)
        await asyncio.sleep(3)
        assert resident(lab.pid) - before < 10 * 1024
        await connection.write_message("text")
        assert activity(lab)["desktop"] == "running"


def test_a_stop_amid_a_log_line_is_not_lost(place: Place) -> None:
    """Jupyter's own handler of SIGTERM fails when it interrupts the log; every answer is a line of it."""
    for _ in range(4):
        lab = Lab(place)
        lab.start()
        ended = threading.Event()

        def ask(lab: Lab = lab, ended: threading.Event = ended) -> None:
            while not ended.is_set():
                lab.get("/api/status")

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            time.sleep(0.5)
            lab.stop()
        finally:
            ended.set()
            for thread in threads:
                thread.join(60)
