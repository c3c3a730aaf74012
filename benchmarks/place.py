"""A place where "instances" run: `python -m benchmarks.place PORT`. One tiny server that stands for all of them.

It lives outside of the Hubs, so that a Hub that starts again finds what ran. It keeps names and answers: is one there,
which are there, and, as each of them, "I am up".
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys

from tornado.web import Application, RequestHandler

_names: set[str] = set()


class One(RequestHandler):
    """PUT, DELETE and GET of one name."""

    def put(self, name: str) -> None:
        _names.add(name)

    def delete(self, name: str) -> None:
        _names.discard(name)

    def get(self, name: str) -> None:
        self.finish(json.dumps(name in _names))


class All(RequestHandler):
    """GET: all names below a prefix, in one answer."""

    def get(self, prefix: str) -> None:
        self.finish(json.dumps([name for name in _names if name[: len(prefix)] == prefix]))


class Up(RequestHandler):
    """What every instance answers."""

    def get(self) -> None:
        self.set_header("X-JupyterHub-Version", "6.1.1")
        self.finish("{}")


async def main(port: int) -> None:
    routes = [("/place/one/(.+)", One), ("/place/all/(.*)", All), ("/.*", Up)]
    Application(routes, log_function=lambda handler: None).listen(port, "127.0.0.1")
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    await stopped.wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
