"""The HTTP server of Hub and portal: it turns away what is too large, too slow or forged before any handler sees it."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Awaitable
from typing import Any

from tornado import httputil
from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream

# Requests that are not complete, and connections that wait for one, are at most so many; the oldest goes.
MOST_WAITING = 500
SETTINGS: dict[str, Any] = {
    # How long a connection may stay silent, its first headers included, and how long a body may take, in seconds.
    "idle_connection_timeout": 120,
    "body_timeout": 20,
    "max_header_size": 32 * 1024,
}
# The proxy passes these on as the browser sent them, and tornado believes them more than what the proxy itself says.
_FORGEABLE = ("X-Real-Ip", "X-Scheme")


class Front(HTTPServer):
    """tornado's server, with few connections that wait, a sentence for a body that is too large, and true addresses.

    Without it 5,000 silent connections cost 50 MB and two minutes, and `X-Real-Ip` of anybody became the address that
    is written into the log and that the login's throttle counts.
    """

    def initialize(self, *args: Any, **kwargs: Any) -> None:
        super().initialize(*args, **kwargs)
        self._waiting: OrderedDict[IOStream, None] = OrderedDict()

    def start_request(self, server_conn: object, request_conn: httputil.HTTPConnection) -> httputil.HTTPMessageDelegate:
        stream: IOStream = request_conn.stream  # type: ignore[attr-defined]
        self._waiting[stream] = None
        if len(self._waiting) > MOST_WAITING:
            oldest, _ = self._waiting.popitem(last=False)
            oldest.close()
        most = self.conn_params.max_body_size or 0
        return _Checked(super().start_request(server_conn, request_conn), request_conn, most, self._waiting)

    def on_close(self, server_conn: object) -> None:
        self._waiting.pop(server_conn.stream, None)  # type: ignore[attr-defined]
        super().on_close(server_conn)


class _Checked(httputil.HTTPMessageDelegate):
    """One request: its headers are looked at before they are passed on."""

    def __init__(
        self,
        delegate: httputil.HTTPMessageDelegate,
        connection: Any,
        most: int,
        waiting: OrderedDict[IOStream, None],
    ) -> None:
        self._delegate, self._connection, self._most, self._waiting = delegate, connection, most, waiting
        self._stream = connection.stream
        self._is_refused = False

    def headers_received(self, start_line: Any, headers: httputil.HTTPHeaders) -> Awaitable[None] | None:
        for name in _FORGEABLE:
            headers.pop(name, None)
        length = headers.get("Content-Length", "")
        if length.isascii() and length.isdigit() and 0 < self._most < int(length[:30]):
            self._is_refused = True
            # It is read to its end, or until its time is over, and kept nowhere: who still sends when a connection is
            # closed sees a broken connection instead of the answer.
            self._connection.set_max_body_size(int(length[:30]))
            return None
        return self._delegate.headers_received(start_line, headers)

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        return None if self._is_refused else self._delegate.data_received(chunk)

    def finish(self) -> None:
        self._waiting.pop(self._stream, None)
        if self._is_refused:
            self._refuse()
        else:
            self._delegate.finish()

    def on_connection_close(self) -> None:
        if not self._is_refused:
            self._delegate.on_connection_close()

    def _refuse(self) -> None:
        sentence = f"This is too large: at most {self._most // 1024} kB fit into one request. Send less."
        body = json.dumps({"status": 413, "message": sentence, "rule": "too-large"}).encode()
        headers = httputil.HTTPHeaders(
            {
                "Content-Type": "application/json",
                "Content-Length": str(len(body)),
                "X-Content-Type-Options": "nosniff",
            }
        )
        start_line = httputil.ResponseStartLine("HTTP/1.1", 413, "Content Too Large")
        # A client that is gone already is no error of ours.
        written = self._connection.write_headers(start_line, headers, body)
        written.add_done_callback(lambda done: done.exception())
        self._connection.finish()
