"""My instances and the page of one: what can be done with it, its history, its name and notes."""

from __future__ import annotations

from typing import Any

from ..model.errors import Refused
from ..model.instance import Phase, Want
from ..model.request import StartRequest
from ..store.database import ask
from . import actions
from .base import Handler
from .cards import card, cards


class Instances(Handler):
    """GET /: all instances of the account, newest first."""

    async def get(self) -> None:
        mine = await ask(self.portal.store.instances.of_owner, self.me.id)
        self.render_page("instances.html", cards=await cards(self.portal, self.me, mine), problem=self._problem())

    def _problem(self) -> str:
        if self.me.quota == 0:
            return (
                "Your account waits for its approval by the facility, so you cannot start an instance yet. "
                "Ask the user office if it takes more than a working day."
            )
        return ""


class InstancePage(Handler):
    """GET instances/{id}: facts, experiments with the reasons why they may be read, history and log."""

    async def get(self, instance_id: str) -> None:
        await self._show(instance_id)

    async def _show(self, instance_id: str, **context: Any) -> None:
        instance = await self.own_instance(instance_id)
        shown = await card(self.portal, self.me, instance)
        history = [event for event in shown.events if event.kind != "note"]
        notes = [event for event in shown.events if event.kind == "note" and event.attempt == instance.attempt]
        context = {"problem": "", "typed": None} | context
        self.render_page("instance.html", card=shown, history=history, log=notes, **context)

    async def post(self, instance_id: str) -> None:
        """Changes the name and the notes."""
        instance = await self.own_instance(instance_id)
        typed = {"name": self.get_argument("name", ""), "notes": self.get_argument("notes", "", strip=False)}
        try:
            request = StartRequest.read(instance.request.as_options() | typed)
        except Refused as refused:
            self.set_status(refused.status)
            return await self._show(instance_id, problem=refused.sentence, typed=typed)
        await ask(self.portal.store.instances.rename, instance.id, request.name, request.notes, self.portal.now())
        return self.redirect(f"{self.portal.prefix}instances/{instance.id}", status=303)


class Start(Handler):
    """POST instances/{id}/start: the same choices again."""

    async def post(self, instance_id: str) -> None:
        instance = await self.own_instance(instance_id)
        started = await actions.start(self.portal, self.me, self.token, instance.server_name, instance.request)
        self.redirect(f"{self.portal.prefix}instances/{started.id}/progress", status=303)


class Stop(Handler):
    """POST instances/{id}/stop: stops, or cancels a start."""

    async def post(self, instance_id: str) -> None:
        await actions.stop(self.portal, self.me, self.token, await self.own_instance(instance_id))
        self.redirect(self.portal.prefix, status=303)


class Restart(Handler):
    """POST instances/{id}/restart: stops and starts with the same choices."""

    async def post(self, instance_id: str) -> None:
        instance = await actions.restart(self.portal, self.me, self.token, await self.own_instance(instance_id))
        self.redirect(f"{self.portal.prefix}instances/{instance.id}/progress", status=303)


class Delete(Handler):
    """GET instances/{id}/delete asks, POST deletes for ever."""

    async def get(self, instance_id: str) -> None:
        instance = await self.own_instance(instance_id)
        running = instance.phase in {Phase.READY, Phase.STARTING} and instance.want is Want.ON
        self.render_page("_delete.html" if self.is_htmx else "delete.html", instance=instance, running=running)

    async def post(self, instance_id: str) -> None:
        await actions.delete(self.portal, self.me, self.token, await self.own_instance(instance_id))
        self.redirect(self.portal.prefix, status=303)
