"""The Hub's own doors to servers, closed where they store before anybody has judged: its spawn page and its API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jupyterhub.apihandlers.users import UserServerAPIHandler
from jupyterhub.handlers.pages import SpawnHandler
from jupyterhub.scopes import needs_scope
from jupyterhub.slugs import is_valid_display_name, normalise_unicode

from ..flows import launch
from ..model.errors import Refused
from ..model.request import StartRequest
from ..store.database import ask
from . import form
from .desk import Desk, now
from .refusals import spoken


class SpawnPage(SpawnHandler):
    """The Hub's spawn page: opening it makes no record of a server, and a refused form leaves none."""

    _is_new = False

    @needs_scope("servers")  # type: ignore[untyped-decorator]
    async def _get(self, user_name: str, server_name: str, display_name: str) -> None:
        user = self.find_user(user_name)
        if user is None or _is_active(user, server_name):
            # Absent, or running: the stock page says so or leads there.
            await super()._get(user_name=user_name, server_name=server_name, display_name=display_name)
            return
        query = {name: [value.decode(errors="replace") for value in many] for name, many in self._query().items()}
        form.keep(self, self._get_user_options(query))
        self.finish(await self._render_form(user, form.link(self, self.settings)))

    def _query(self) -> Mapping[str, list[bytes]]:
        return {
            name: values
            for name, values in self.request.query_arguments.items()
            if name not in {"next", "display_name", "opt-"}
        }

    @needs_scope("servers")  # type: ignore[untyped-decorator]
    async def _post(self, user_name: str, server_name: str, display_name: str) -> None:
        user = self.find_user(user_name)
        self._is_new = user is not None and server_name not in user.orm_spawners
        await super()._post(user_name=user_name, server_name=server_name, display_name=display_name)

    async def _wrap_spawn_single_user(self, user: Any, server_name: str, *more: Any) -> None:
        try:
            await super()._wrap_spawn_single_user(user, server_name, *more)
        except Exception:
            if self._is_new:
                await _drop_unadmitted(self, user, server_name)
            raise


class ServerDoor(UserServerAPIHandler):
    """The Hub's API of one server: what would be refused at a start is not stored either."""

    @needs_scope("start:servers")  # type: ignore[untyped-decorator]
    async def put(self, user_name: str, server_name: str = "") -> None:
        await self._judge(user_name, self.get_server_json_body())
        await super().put(user_name, server_name)

    @needs_scope("start:servers")  # type: ignore[untyped-decorator]
    async def patch(self, user_name: str, server_name: str = "") -> None:
        body = self.get_json_body()
        if isinstance(body, dict):
            await self._judge(user_name, body)
        await super().patch(user_name, server_name)

    @needs_scope("start:servers")  # type: ignore[untyped-decorator]
    async def post(self, user_name: str, server_name: str = "") -> None:
        """Starts; `VisaSpawner.admit` judges the choices, here is read only what is stored before that."""
        body = self.get_server_json_body()
        self._check_display_name(body)
        self._read(body)
        user = self.find_user(user_name)
        is_new = user is not None and server_name not in user.orm_spawners
        try:
            await super().post(user_name, server_name)
        except Exception:
            if is_new:
                await _drop_unadmitted(self, user, server_name)
            raise

    async def _judge(self, user_name: str, body: Mapping[str, Any]) -> None:
        self._check_display_name(body)
        request = self._read(body)
        if request is None:
            return
        desk = Desk.of(self.settings["config"])
        try:
            account = await ask(desk.account, user_name)
            await ask(launch.choose, desk.parts.store, desk.parts.menu, account, request, now().date())
        except Exception as error:
            raise spoken(error, self.log) from None

    def _read(self, body: Mapping[str, Any]) -> StartRequest | None:
        """Reads the options, which the stock handler keeps before anybody looks at them; None when there are none."""
        try:
            return StartRequest.read(body["user_options"]) if body.get("user_options") else None
        except Refused as error:
            raise spoken(error, self.log) from None

    def _check_display_name(self, body: Mapping[str, Any]) -> None:
        """The stock handler looks at the name of a new server only."""
        name = body.get("display_name")
        if not name or (isinstance(name, str) and is_valid_display_name(normalise_unicode(name))):
            return
        sentence = "The name shown for a server is plain text of at most 255 characters. Shorten it, or type it again."
        raise spoken(Refused(sentence, rule="display-name", status=422), self.log)


def _is_active(user: Any, server_name: str) -> bool:
    return server_name in user.spawners and bool(user.spawners[server_name].active)


async def _drop_unadmitted(handler: Any, user: Any, server_name: str) -> None:
    """Takes back the Hub's record of a new server that was refused."""
    try:
        row = await ask(Desk.of(handler.settings["config"]).row, user.name, server_name)
    except Exception as error:
        handler.log.warning("%s/%s: the next rounds drop its record: %s", user.name, server_name, error)
        return
    # Meanwhile another request may have begun to start it.
    record = user.orm_spawners.get(server_name)
    if row is None and record is not None and not _is_active(user, server_name):
        user.spawners.pop(server_name, None)
        handler.db.delete(record)
        handler.db.commit()
