"""JupyterLab's files at one address for all instances, compressed: a browser loads them once, not once an instance.

An instance asks for its build here and uses the portal's copy while it answers, else its own
(`singleuser/assets.py`); so neither an old instance nor a portal that is away leaves anybody without JupyterLab.
"""

from __future__ import annotations

import asyncio
import gzip
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tornado.web import HTTPError, RequestHandler

from .base import HEADERS

# What a browser may have of a build; all of it is published software.
_TYPES = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
    ".ttf": "font/ttf",
    ".eot": "application/vnd.ms-fontobject",
}
_PACKED = {".js", ".css", ".svg", ".ttf", ".eot"}
# The entry of a build: its name holds a hash of the names of all other files, each of which holds a hash of its own.
_ENTRY = re.compile(r"main\.([0-9a-f]{8,64})\.js")
_MOST_PREFETCHED = 80


class Builds:
    """The builds of JupyterLab that this portal gives out, by the hash of their entry."""

    def __init__(self, folders: Iterable[Path]) -> None:
        self._files: dict[str, dict[str, Path]] = {}
        self._packed: dict[Path, bytes] = {}
        self._asked: dict[str, Counter[str]] = {}
        for folder in folders:
            for name in sorted(path.name for path in folder.glob("main.*.js")):
                if entry := _ENTRY.fullmatch(name):
                    files = {path.name: path for path in folder.iterdir() if path.suffix in _TYPES and path.is_file()}
                    self._files[entry[1]] = files
                    self._asked[entry[1]] = Counter()

    def file(self, build: str, name: str) -> Path | None:
        return self._files.get(build, {}).get(name)

    async def packed(self, path: Path) -> bytes:
        """Gives a file compressed. Each is compressed once and kept: a whole build takes 5 MB."""
        if path not in self._packed:
            self._packed[path] = await asyncio.to_thread(_pack, path)
        return self._packed[path]

    async def pack_all(self) -> None:
        """Compresses everything, so that nobody waits for it."""
        for files in self._files.values():
            for path in files.values():
                if path.suffix in _PACKED:
                    await self.packed(path)

    def count(self, build: str, name: str, query: str) -> None:
        """Notes that a page of JupyterLab has loaded a script. JupyterLab repeats a name's hash behind it."""
        if name.endswith(".js") and query in {"", f"v={name.split('.')[-2]}"}:
            self._asked[build][f"{build}/{name}" + (f"?{query}" if query else "")] += 1

    def prefetched(self) -> list[str]:
        """Gives what a page of JupyterLab loads at its start, in this order, for pages that people see before it.

        That is what at least half of the loads of the most used build have asked for since the portal was started.
        """
        asked = max(self._asked.values(), key=lambda counts: counts.total(), default=Counter[str]())
        loads = max((number for name, number in asked.items() if _is_entry(name)), default=0)
        return [name for name, number in asked.items() if loads and number * 2 >= loads][:_MOST_PREFETCHED]


def _pack(path: Path) -> bytes:
    return gzip.compress(path.read_bytes(), compresslevel=9, mtime=0)


def _is_entry(name: str) -> bool:
    return _ENTRY.fullmatch(name.rpartition("/")[2].partition("?")[0]) is not None


class LabFile(RequestHandler):
    """GET lab/BUILD/NAME: open to everybody, as JupyterLab is, and kept for ever: another build is another name."""

    def initialize(self, builds: Builds) -> None:
        self._builds = builds

    def set_default_headers(self) -> None:
        for name, value in HEADERS.items():
            self.set_header(name, value)
        # With per-user domains, pages of other names of this site load it.
        self.set_header("Cross-Origin-Resource-Policy", "cross-origin")
        self.set_header("Access-Control-Allow-Origin", "*")
        self.clear_header("Server")

    async def get(self, build: str, name: str) -> None:
        path = self._builds.file(build, name)
        if path is None:
            raise HTTPError(404)
        self.set_header("Content-Type", _TYPES[path.suffix])
        self.set_header("Cache-Control", "public, max-age=31536000, immutable")
        self.set_header("Vary", "Accept-Encoding")
        if self.request.method == "GET" and "prefetch" not in self.request.headers.get("Sec-Purpose", ""):
            self._builds.count(build, name, self.request.query)
        if path.suffix in _PACKED and "gzip" in self.request.headers.get("Accept-Encoding", ""):
            self.set_header("Content-Encoding", "gzip")
            self.finish(await self._builds.packed(path))
        else:
            self.finish(await asyncio.to_thread(path.read_bytes))

    async def head(self, build: str, name: str) -> None:
        await self.get(build, name)

    def write_error(self, status_code: int, **kwargs: object) -> None:
        self.set_header("Content-Type", "text/plain")
        self.finish("There is no such file of JupyterLab here.")

    def compute_etag(self) -> None:
        """The name says it all."""
