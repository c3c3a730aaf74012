"""Tells the route table of a running application: an extra handler of the Hub, an extension of a Jupyter server."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from tornado.web import Application, RequestHandler
from tornado.websocket import WebSocketHandler

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
ADDRESS = "tests/routes"


def table(application: Application) -> list[dict[str, Any]]:
    """Gives every route: its pattern, the handler's full name, its methods, and whether it is a websocket."""
    return [
        {
            "pattern": pattern,
            "handler": f"{handler.__module__}.{handler.__name__}",
            "methods": [m for m in METHODS if getattr(handler, m.lower()) is not getattr(RequestHandler, m.lower())],
            "is_websocket": issubclass(handler, WebSocketHandler),
        }
        for pattern, handler in _rules(application.default_router)
    ]


def _rules(router: Any) -> Iterator[tuple[str, type[RequestHandler]]]:
    for rule in router.rules:
        if hasattr(rule.target, "rules"):
            yield from _rules(rule.target)
        elif isinstance(rule.target, type) and hasattr(rule.matcher, "regex"):
            yield rule.matcher.regex.pattern, rule.target


class Routes(RequestHandler):
    """Tells the table; only tests have it."""

    def get(self) -> None:
        self.finish(json.dumps({"routes": table(self.application)}))


def _load_jupyter_server_extension(app: Any) -> None:
    app.web_app.add_handlers(".*$", [(app.web_app.settings["base_url"] + ADDRESS, Routes)])


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "tests.services.routes"}]


_GROUP = re.compile(r"\((?:\?P<\w+>|\?:)?((?:[^()]|\([^()]*\))*)\)([*+?]|\{\d+,?\d*\})?")
_CANDIDATES = ("x", "/x", "5", "x/y", "0a1b2c3d", "0a1b2c3d-0000-0000-0000-000000000000", "html")


def example(pattern: str, text: str = "x") -> str:
    """Gives an address that a pattern matches, with `text` for each part that may vary; fails when it finds none."""
    address = re.sub(r"\(\?[!=][^()]*\)", "", pattern.removesuffix("$").removeprefix("^"))
    for _ in range(3):
        address = _GROUP.sub(lambda found: _filled(found, text), address)
    address = re.sub(r"\\(\W)", r"\1", address.replace("/?", "/"))
    for candidate in (address.replace(".*", text), address, "/" + address.replace(".*", text)):
        if re.fullmatch(pattern, candidate):
            return candidate
    raise AssertionError(f"No address found for {pattern}, tried {address}")


def _filled(found: re.Match[str], text: str) -> str:
    inside, many = found.groups()
    if many in {"?", "*"}:
        return ""
    for candidate in (text, *_CANDIDATES, *(re.sub(r"\\(\W)", r"\1", part) for part in inside.split("|"))):
        if re.fullmatch(inside, candidate):
            return candidate
    return inside
