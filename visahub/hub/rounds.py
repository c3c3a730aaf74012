"""One round: what is wanted, what exists and what the Hub knows are brought together; called by `handlers.py`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from jupyterhub import orm
from jupyterhub.utils import url_path_join

from ..backends.base import Backend
from ..flows import reconcile, steady
from ..model.errors import Refused, Unavailable
from ..model.instance import Instance, Phase, Want
from ..model.offer import Offer
from ..model.request import StartRequest
from ..store.database import ask
from . import desk, metrics, resume
from .desk import Desk, now
from .portal import SERVICE

# Attempts that cannot be taken up, told once.
_without_token: set[str] = set()
# Records of the Hub without a row of ours, as the last round saw them. Two rounds are long enough for a page to show
# why a start was refused.
_strays: set[tuple[str, str]] = set()

# The answer of a round goes into the portal's log.
_MOST_TOLD = 20
# The Hub waits a second for each start that a round begins; the rest of the round must not wait for hundreds.
_AGAIN_AT_ONCE = 20


class Round:
    """What one round does; every part goes on when another one fails."""

    def __init__(self, handler: Any) -> None:
        self._handler = handler
        self._log = handler.log
        self._desk = Desk.of(handler.settings["config"])
        self._ready: list[Any] = []
        handler.lost = {}

    async def run(self) -> dict[str, Any]:
        """Does the round and tells what was done, for the portal's log."""
        parts = self._desk.parts
        jumped = await steady.follow(parts.store, desk.clock)
        report = await reconcile.reconcile(parts.store, parts.backends, now, grace_seconds=parts.settings.grace_seconds)
        metrics.round_done(report)
        again = await self._guarded("retry", self._start_again(report.retry)) or 0
        # A quiet round has nothing new to read.
        rows = await ask(parts.store.instances.live) if report.done else report.rows
        # Once for all parts of the round: each pass over a thousand servers asks the Hub's database.
        self._ready = self._ready_spawners()
        await self._guarded("ends", self._notice_ends(rows))
        taken_up = await self._guarded("resume", self._take_up(rows)) or 0
        # While our database lacks what runs, the Hub's records may be all that is left of it.
        dropped = 0 if report.unknown else await self._guarded("records", self._drop_records(rows)) or 0
        await self._guarded("offers", self._save_offers())
        await self._guarded("tokens", self._forget_tokens())
        routes = await self._guarded("routes", self._check_routes()) or 0
        await self._guarded("answers", self._look_for_silence(rows))
        metrics.ROUTES.inc(routes)
        told = {"again": again, "taken_up": taken_up, "dropped": dropped, "routes": routes}
        seen = {"unknown": sorted(report.unknown)[:_MOST_TOLD], "unavailable": report.unavailable}
        return {**told, **seen, "jumped": jumped.total_seconds()}

    async def _guarded(self, name: str, work: Any) -> Any:
        try:
            return await work
        except Unavailable as error:
            self._log.warning("Round, %s: %s", name, error)
        except Exception:
            self._log.exception("Round, %s", name)
        return None

    async def _start_again(self, rows: Iterable[Instance]) -> int:
        """Starts what was wanted when the Hub was killed and that the Hub has forgotten, some of it in each round."""
        forgotten = [row for row in rows if not self._is_active(row.owner, row.server_name)]
        return sum(await asyncio.gather(*(self._start_one_again(row) for row in forgotten[:_AGAIN_AT_ONCE])))

    async def _start_one_again(self, row: Instance) -> bool:
        user = self._handler.find_user(row.owner)
        if user is None:
            return False
        self._handler.lost[(row.owner, row.server_name)] = row
        try:
            user.get_or_create_spawner(row.server_name, row.name, replace_failed=True)
            await self._handler.spawn_single_user(user, row.server_name, row.name)
        except Exception as error:
            self._log.error("%s of %s could not be started again: %s", row.server_name, row.owner, error)
            return False
        return True

    async def _notice_ends(self, rows: Iterable[Instance]) -> None:
        """Lets the Hub take leave of what has ended, with its route and token, before its next poll."""
        live = {row.attempt for row in rows if row.want is Want.ON and row.phase in {Phase.STARTING, Phase.READY}}
        ended = [spawner for spawner in self._ready if spawner.attempt not in live]
        await asyncio.gather(*(self._notice_end(spawner) for spawner in ended))

    async def _notice_end(self, spawner: Any) -> None:
        has_ended = await spawner.poll_and_notify() is not None
        if has_ended and spawner.ready:
            # A stop that met the very end of a start: the Hub answered it with 500, and looks after this no more.
            await self._handler.stop_single_user(spawner.user, spawner.name)

    async def _take_up(self, rows: Iterable[Instance]) -> int:
        """Takes up what runs by our rows and what the Hub does not know, since its database came from a copy."""
        store, done = self._desk.parts.store, 0
        known = {spawner.attempt for spawner in self._ready}
        for row in rows:
            if row.phase is not Phase.READY or row.want is not Want.ON or row.attempt in known:
                continue
            if self._is_active(row.owner, row.server_name) or not await self._still_runs(row):
                continue
            user = self._handler.user_from_username(row.owner)
            if row.attempt in _without_token or not await resume.token_of(store, user, row):
                if row.attempt not in _without_token:
                    _without_token.add(row.attempt)
                    self._log.warning("%s of %s runs, but its token is lost: it is left alone", row.id, row.owner)
                continue
            self._handler.lost[(row.owner, row.server_name)] = row
            try:
                user.get_or_create_spawner(row.server_name, row.name, replace_failed=True)
                await self._handler.spawn_single_user(user, row.server_name, row.name)
                done += 1
            except Exception as error:
                self._log.error("%s of %s could not be taken up: %s", row.server_name, row.owner, error)
        return done

    async def _still_runs(self, row: Instance) -> bool:
        """Tells whether nobody has ended an instance since its row was read."""
        now = await ask(self._desk.parts.store.instances.get, row.id)
        return now is not None and (now.attempt, now.phase, now.want) == (row.attempt, row.phase, row.want)

    async def _drop_records(self, rows: Iterable[Instance]) -> int:
        """Drops the Hub's records of servers that were never admitted, so that refused options do not stay."""
        global _strays
        known = {(row.owner, row.server_name): row for row in rows}
        strays = set()
        for username, spawner in self._idle_records():
            row = known.get((username, spawner.name))
            if row is None:
                strays.add((username, spawner.name))
            elif not _is_readable(spawner.user_options):
                # A PATCH stores whatever it is given.
                spawner.user_options = row.request.as_options()
                self._handler.db.commit()
        dropped = 0
        for username, server_name in strays & _strays:
            user = self._handler.find_user(username)
            if user is None:
                continue
            user.spawners.pop(server_name, None)
            self._handler.db.delete(user.orm_spawners[server_name])
            self._handler.db.commit()
            dropped += 1
        _strays = strays
        return dropped

    def _idle_records(self) -> list[tuple[str, orm.Spawner]]:
        """Gives the Hub's records of named servers that do nothing, with their users' names."""
        query = self._handler.db.query(orm.User.name, orm.Spawner).join(orm.Spawner.user)
        found = query.filter(orm.Spawner.name != "", orm.Spawner.server_id.is_(None)).all()
        return [(username, spawner) for username, spawner in found if not self._is_active(username, spawner.name)]

    def _is_active(self, username: str, server_name: str) -> bool:
        user = self._handler.find_user(username)
        return user is not None and server_name in user.spawners and user.spawners[server_name].active

    async def _save_offers(self) -> None:
        parts = self._desk.parts
        await asyncio.gather(*(self._save_offers_of(backend) for backend in parts.backends.values()))

    async def _save_offers_of(self, backend: Backend) -> None:
        parts = self._desk.parts
        hardware = tuple(size for size in parts.menu.hardware if size.backend == backend.id)
        try:
            offers = await backend.offers(hardware)
        except Exception as error:
            self._log.warning("%s cannot be asked what is free: %s", backend.id, error)
            offers = [Offer(hardware=size, is_free=None, sentence="cannot be asked just now") for size in hardware]
        await ask(parts.store.offers.save, backend.id, offers, now())

    async def _forget_tokens(self) -> None:
        """Takes the portal's older tokens out: the Hub itself would take each one that it was ever given, for ever."""
        service, db = self._handler.settings["services"].get(SERVICE), self._handler.db
        if service is None:
            return
        held = db.query(orm.APIToken).filter(orm.APIToken.service_id == service.orm.id).all()
        if len(held) < 2:
            return
        current = orm.APIToken.find(db, service.api_token)
        older = [token for token in held if current is not None and token.id != current.id]
        for token in older:
            db.delete(token)
        # A commit makes the Hub read everything that it holds again.
        if older:
            db.commit()

    async def _check_routes(self) -> int:
        """Notices a proxy that was restarted: without this its routes are missing for `last_activity_interval`."""
        proxy, settings = self._handler.proxy, self._handler.settings
        routes = await proxy.get_all_routes()
        missing = [spec for spec in self._expected_routes() if spec not in routes]
        if missing:
            await proxy.check_routes(self._handler.users, settings["services"], routes)
        return len(missing)

    async def _look_for_silence(self, rows: Iterable[Instance]) -> None:
        ready = [row for row in rows if row.phase is Phase.READY and row.want is Want.ON]
        self._desk.silence.look(ready, self._addresses({row.attempt for row in ready}))

    def _addresses(self, attempts: set[str]) -> Mapping[str, str]:
        """Gives where the Hub itself asks whether a server is up, by attempt."""
        return _Addresses({one.attempt: one for one in self._ready if one.attempt in attempts})

    def _expected_routes(self) -> Iterable[str]:
        yield self._handler.hub.routespec
        for service in self._handler.settings["services"].values():
            if service.server is not None:
                yield service.proxy_spec
        for spawner in self._ready:
            # A route of one that has ended meanwhile would lead nowhere.
            if spawner.ready:
                yield spawner.proxy_spec

    def _ready_spawners(self) -> list[Any]:
        return [spawner for user in self._handler.users.values() for spawner in user.spawners.values() if spawner.ready]


class _Addresses(Mapping[str, str]):
    """The addresses of many servers, put together only for the few that are asked."""

    def __init__(self, spawners: Mapping[str, Any]) -> None:
        self._spawners = spawners

    def __getitem__(self, attempt: str) -> str:
        server = self._spawners[attempt].server
        # It may have been stopped a moment ago; then nothing answers, and nobody minds.
        return url_path_join(server.url, "api") if server is not None else ""

    def __iter__(self) -> Iterator[str]:
        return iter(self._spawners)

    def __len__(self) -> int:
        return len(self._spawners)


def _is_readable(options: object) -> bool:
    try:
        StartRequest.read(options)
    except Refused:
        return False
    return True
