"""`visahub db backup`, `visahub db restore` and `visahub strays`: copies of the databases, and what they lack."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import ParamSpec, TypeVar

import click
from traitlets.config import Config

from . import build
from .flows import strays
from .model.errors import Unavailable, VisahubError
from .model.lease import LEASE_SECONDS
from .store import copies
from .store.database import Store
from .store.engine import Database

_P = ParamSpec("_P")
_R = TypeVar("_R")


@dataclass(frozen=True)
class Wish:
    """Whose a stray shall be."""

    owner: str
    server: str
    name: str


def _spoken(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Shows an error's sentence in place of its traceback."""

    @functools.wraps(function)
    def spoken(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return function(*args, **kwargs)
        except VisahubError as error:
            raise click.ClickException(error.sentence) from error

    return spoken


@_spoken
def backup(path: Path, folder: Path) -> None:
    """Copies both databases; the Hub's first, so that ours knows all that the Hub's copy knows."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name, database in reversed(_databases(build.read(path)).items()):
        target = folder / f"{name}.{copies.suffix(database)}"
        copies.make(database, target)
        click.echo(f"{target} ({target.stat().st_size // 1024} kB)")
    click.echo("Keep them with the Hub's cookie secret and JUPYTERHUB_CRYPT_KEY, without which they tell less.")


@_spoken
def restore(path: Path, folder: Path, only: str) -> None:
    """Puts the copies of a folder back; all must be there before any is."""
    config = build.read(path)
    chosen = {name: database for name, database in _databases(config).items() if only in {"", name}}
    sources = {name: folder / f"{name}.{copies.suffix(database)}" for name, database in chosen.items()}
    absent = [str(source) for source in sources.values() if not source.is_file()]
    if absent:
        raise Unavailable(f"There is no {absent[0]}. Nothing was changed; name the folder of `visahub db backup`.")
    _check_nobody_works(build.build(config).store)
    for name, database in chosen.items():
        kept = copies.put_back(database, sources[name])
        click.echo(f"{name}: restored." + (f" What was there: {kept}" if kept else ""))
    click.echo("Run `visahub db upgrade`, start the Hub, then see what the copy does not know: visahub strays list")


def _databases(config: Config) -> dict[str, Database]:
    urls = {
        "visahub": config.Visahub.get("database_url", "sqlite:///visahub.sqlite"),
        "jupyterhub": config.JupyterHub.get("db_url", "sqlite:///jupyterhub.sqlite"),
    }
    return {name: Database(url if "://" in url else f"sqlite:///{url}") for name, url in urls.items()}


def _check_nobody_works(store: Store) -> None:
    """Raises Unavailable while a Hub works; a database that cannot say so is about to be replaced anyway."""
    try:
        lease = store.leases.held()
    except VisahubError:
        return
    finally:
        store.close()
    if lease is not None and abs((datetime.now(UTC) - lease.renewed).total_seconds()) < LEASE_SECONDS:
        raise Unavailable(
            f"A Hub works on the database: process {lease.holder.pid} on {lease.holder.host}. Stop Hub and portal "
            f"first; after a crash wait {LEASE_SECONDS} seconds. Nothing was changed."
        )


@_spoken
def list_strays(path: Path) -> int:
    """Prints all strays and gives 1 when there are any."""
    parts = build.build(build.read(path))
    found = asyncio.run(strays.find(parts.store, parts.backends))
    for stray in found:
        seen = stray.condition
        click.echo(f"{stray.attempt}  {stray.backend}  {seen.seen.value}  server {seen.instance_id or 'unknown'}")
    if not found:
        click.echo("Every instance that runs has a row.")
        return 0
    click.echo(
        "These run and no row knows them. See docs/backup.md. To give one back to its owner:\n"
        "    visahub strays adopt ATTEMPT --owner NAME --really\nTo end one:\n    visahub strays end ATTEMPT --really"
    )
    return 1


@_spoken
def adopt_stray(path: Path, attempt: str, wish: Wish, *, really: bool) -> None:
    """Writes the row of a stray, or tells that it would."""
    parts = build.build(build.read(path))
    stray = asyncio.run(strays.one(parts.store, parts.backends, attempt))
    server = wish.server or stray.condition.instance_id
    if not really:
        click.echo(f"{attempt} would become the instance {server} of {wish.owner}. To do it, add --really.")
        return
    row = strays.adopt(parts.store, stray, wish.owner, wish.server, wish.name, datetime.now(UTC))
    click.echo(f"{attempt} is the instance {row.server_name} of {row.owner} again.")


@_spoken
def end_stray(path: Path, attempt: str, *, really: bool) -> None:
    """Ends a stray, or tells that it would."""
    parts = build.build(build.read(path))
    stray = asyncio.run(strays.one(parts.store, parts.backends, attempt))
    if not really:
        click.echo(f"{attempt} in {stray.backend} would be ended. To do it, add --really.")
        return
    asyncio.run(strays.end(parts.backends, stray))
    click.echo(f"{attempt} has ended.")
