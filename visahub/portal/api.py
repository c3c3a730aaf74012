"""The JSON API: the same rules and the same words as the pages; described in `openapi.py`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from ..model.account import Account
from ..model.errors import Refused
from ..model.experiment import Experiment
from ..model.instance import Instance, new_instance_id
from ..model.policy import may_read, may_take
from ..model.request import StartRequest
from ..store.database import ask
from . import actions, words
from .auth import check_is_instance
from .base import Handler, Portal
from .cards import links
from .experiments import SEARCH_FIELDS, find, read_search, unknown_experiment
from .openapi import described

# A machine's clock may be ahead of ours by this much.
CLOCK_SKEW = timedelta(minutes=1)


class Api(Handler):
    """A handler of the JSON API: errors are JSON, and unknown parameters are refused."""

    is_json = True
    parameters: frozenset[str] = frozenset()

    async def prepare(self) -> None:
        await super().prepare()
        self.refuse_unknown(set(self.parameters))

    def body(self) -> Mapping[str, Any]:
        """Gives the JSON object of the request; {} for an empty body."""
        if not self.request.body:
            return {}
        try:
            value = json.loads(self.request.body)
        except (ValueError, RecursionError) as error:
            raise Refused("The body is not JSON. Send one JSON object.", rule="json", status=422) from error
        if not isinstance(value, dict):
            raise Refused("The body must be one JSON object.", rule="json", status=422)
        return value

    def no_body(self) -> None:
        if self.body():
            raise Refused("This takes no body. Send none.", rule="unknown-field", status=422)


class ApiExperiments(Api):
    """GET api/experiments: the same search as on the pages."""

    parameters = frozenset(SEARCH_FIELDS)

    async def get(self) -> None:
        found = await find(self.portal, self.me, read_search(self))
        self.send_json(
            {
                "total": found.total,
                "page": found.search.page,
                "pages": found.pages,
                "experiments": [experiment_json(self.portal, self.me, item) for item in found.experiments],
            }
        )


class ApiExperiment(Api):
    """GET api/experiments/{id}."""

    async def get(self, experiment_id: str) -> None:
        experiment = (await ask(self.portal.store.experiments.get, [experiment_id])).get(experiment_id)
        if experiment is None:
            raise unknown_experiment()
        decision = may_read(self.me, experiment, self.portal.today)
        if not decision.allowed:
            raise Refused(decision.sentence, rule=decision.rule)
        self.send_json(experiment_json(self.portal, self.me, experiment))


class ApiInstances(Api):
    """GET api/instances: mine. POST api/instances: starts a new one."""

    async def get(self) -> None:
        mine = await ask(self.portal.store.instances.of_owner, self.me.id)
        self.send_json({"instances": [instance_json(self.portal, instance) for instance in mine]})

    async def post(self) -> None:
        request = StartRequest.read(self.body())
        instance = await actions.start(self.portal, self.me, self.token, new_instance_id(), request)
        self.set_header("Location", f"{self.portal.prefix}api/instances/{instance.id}")
        self.send_json(instance_json(self.portal, instance), 201)


class ApiInstance(Api):
    """GET api/instances/{id}, DELETE api/instances/{id}."""

    async def get(self, instance_id: str) -> None:
        self.send_json(instance_json(self.portal, await self.own_instance(instance_id)))

    async def delete(self, instance_id: str) -> None:
        self.no_body()
        await actions.delete(self.portal, self.me, self.token, await self.own_instance(instance_id))
        self.set_status(204)
        self.finish()


class ApiStart(Api):
    """POST api/instances/{id}/start: the same choices again."""

    async def post(self, instance_id: str) -> None:
        self.no_body()
        instance = await self.own_instance(instance_id)
        started = await actions.start(self.portal, self.me, self.token, instance.server_name, instance.request)
        self.send_json(instance_json(self.portal, started), 202)


class ApiStop(Api):
    """POST api/instances/{id}/stop: stops, or cancels a start."""

    async def post(self, instance_id: str) -> None:
        self.no_body()
        instance = await self.own_instance(instance_id)
        await actions.stop(self.portal, self.me, self.token, instance)
        self.send_json(instance_json(self.portal, await self.own_instance(instance.id)), 202)


class ApiActivity(Api):
    """POST api/instances/{id}/activity: an instance tells, with its own token, when it was last used."""

    access = "token"

    async def post(self, instance_id: str) -> None:
        instance = check_is_instance(self.current_user, await ask(self.portal.store.instances.get, instance_id))
        body = self.body()
        unknown = sorted(set(body) - {"last_activity", "last_input"})
        if unknown or not body:
            raise Refused("Send last_activity, last_input or both, and nothing else.", rule="unknown-field", status=422)
        # null: the instance does not know, for example because there was no desktop yet.
        times = {field: self._time(field, value) for field, value in body.items() if value is not None}
        await ask(partial(self.portal.store.instances.touch, instance.id, **times))
        self.set_status(204)
        self.finish()

    def _time(self, field: str, value: object) -> datetime:
        when = _moment(value)
        if when is None:
            raise Refused(
                f"{field} must be a time with its zone, like 2027-05-03T09:30:00+00:00.", rule=field, status=422
            )
        if when > self.portal.now() + CLOCK_SKEW:
            raise Refused(f"{field} is in the future. Set the machine's clock.", rule=field, status=422)
        return when


def _moment(value: object) -> datetime | None:
    """Gives a time in UTC, None for what is none, has no zone or lies outside of the calendar."""
    # Python's reader passes over a NUL.
    if not isinstance(value, str) or len(value) > 40 or not (value.isascii() and value.isprintable()):
        return None
    try:
        when = datetime.fromisoformat(value)
        return when.astimezone(UTC) if when.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


class ApiOffers(Api):
    """GET api/offers: environments and hardware, what the account may take, and what is free now."""

    async def get(self) -> None:
        snapshots = await ask(self.portal.store.offers.all)
        environments = []
        for item in self.portal.menu.environments:
            decision = may_take(self.me, item.restriction, ())
            environments.append(
                {"id": item.id, "name": item.name, "version": item.version, "description": item.description}
                | {"has_desktop": item.has_desktop, "places": sorted(item.images)}
                | {"allowed": decision.allowed, "rule": decision.rule, "sentence": decision.sentence}
            )
        hardware = []
        for size in self.portal.menu.hardware:
            decision = may_take(self.me, size.restriction, ())
            is_free, sentence, at = snapshots.get(size.id, (None, "", None))
            hardware.append(
                {"id": size.id, "name": size.name, "place": size.place, "backend": size.backend}
                | {"cores": size.cores, "memory_mb": size.memory_mb, "gpu": size.gpu, "description": size.description}
                | {"allowed": decision.allowed, "rule": decision.rule, "sentence": decision.sentence}
                | {"is_free": is_free, "availability": sentence, "asked": at.isoformat() if at else None}
            )
        self.send_json({"environments": environments, "hardware": hardware})


class ApiDescription(Api):
    """GET api/openapi.json."""

    async def get(self) -> None:
        menu = self.portal.menu
        environments, hardware = [item.id for item in menu.environments], [size.id for size in menu.hardware]
        self.send_json(described(self.portal.prefix, environments, hardware))


def experiment_json(portal: Portal, account: Account, experiment: Experiment) -> dict[str, Any]:
    """Says an experiment as this account may see it: the team only to those who may read it."""
    row = words.row(account, experiment, portal.today)
    team = None
    if words.may_see_team(account, experiment):
        team = [{"username": m.username, "name": m.name, "role": m.role.value} for m in experiment.team]
    return {
        "id": experiment.id,
        "proposal": experiment.proposal,
        "title": experiment.title,
        "instrument": experiment.instrument,
        "start": experiment.start.isoformat() if experiment.start else None,
        "end": experiment.end.isoformat() if experiment.end else None,
        "public_at": experiment.public_at.isoformat() if experiment.public_at else None,
        "doi": experiment.doi,
        "url": experiment.url,
        "summary": experiment.summary,
        "licence": experiment.licence,
        "technique": experiment.technique,
        "team": team,
        "rule": row.reading.rule,
        "sentence": row.reading.sentence,
        "may_choose": row.choosing.allowed,
    }


def instance_json(portal: Portal, instance: Instance) -> dict[str, Any]:
    """Says an instance; where it runs inside (address, state) is nobody's business."""
    lab, desktop = links(portal, instance)
    times = {key: getattr(instance, key) for key in ("created", "started", "ready", "stopped", "last_activity")}
    return {
        "id": instance.id,
        "server_name": instance.server_name,
        "name": instance.name,
        "notes": instance.request.notes,
        "phase": instance.phase.value,
        "want": instance.want.value,
        "sentence": instance.sentence,
        "experiments": list(instance.request.experiments),
        "environment": instance.request.environment,
        "hardware": instance.request.hardware,
        "jupyterlab": lab,
        "desktop": desktop or None,
        "page": f"{portal.prefix}instances/{instance.id}",
    } | {key: value.isoformat() if value else None for key, value in times.items()}
