"""An instance for tests of the Hub: answers within 0.1 s where JupyterLab takes one; obeys files in its home.

`~/fail` makes it end with a last line, `~/slow` makes it wait until the file is gone, and so does a stopped `~/mute`.
"""

from __future__ import annotations

import json
import os
import socketserver
import sys
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

VERSION = "6.1.1"


class Answer(BaseHTTPRequestHandler):
    """Tells its environment's names and values under any address."""

    def do_GET(self) -> None:
        body = json.dumps({"pid": os.getpid(), "path": self.path, "environ": dict(os.environ)}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("X-JupyterHub-Version", VERSION)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "hub"

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


def main() -> None:
    home = Path(os.environ["HOME"])
    if (home / "fail").exists():
        sys.exit("The tiny server fails since it was told so.")
    while (home / "slow").exists():
        time.sleep(0.05)
    socket = unquote(urlsplit(os.environ["JUPYTERHUB_SERVICE_URL"]).netloc)
    os.umask(0o077)
    Server(socket, Answer).serve_forever()


if __name__ == "__main__":
    main()
