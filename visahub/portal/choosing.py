"""The form for a new instance: experiments, environment, hardware; it starts with one POST, and never with a GET."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..model.errors import Refused
from ..model.experiment import Search
from ..model.instance import Instance, Want
from ..model.policy import may_read
from ..model.request import KEYBOARDS, RESOLUTIONS
from ..store.database import ask
from . import actions, words
from .base import Handler
from .experiments import SIZES, SORTS, find, found_words, read_search
from .form import Form, asked_for, bare_doi, linked, posted
from .offers import Offered, offered

_RESOLUTIONS = tuple(
    (value, "as my window" if value == "client" else value.replace("x", " x ")) for value in RESOLUTIONS
)


class NewInstance(Handler):
    """GET new: the form, filled from the address. POST new: the same form again after a change; nothing starts."""

    async def get(self) -> None:
        preferences = await ask(self.portal.store.preferences.get, self.me.id)
        search, problem = _search_or_problem(self)
        source = self.get_argument("instance", "")
        instance = await self.own_instance(source) if source else None
        form = linked(self, search, preferences, instance)
        missing: list[str] = []
        if instance is None:
            found, missing = await self._asked_experiments()
            form = _with(form, experiments=tuple(found))
        reused = instance if instance is not None and instance.may_start else None
        self.set_status(422 if problem else 200)
        await show(self, form, problem=problem, missing=missing, last=preferences.get("last"), existing=reused)

    async def post(self) -> None:
        part = self.get_argument("part", "")
        page = self.get_argument("page", "") or ("1" if part == "found" else self.get_argument("at_page", "1"))
        search, problem = _search_or_problem(self, page)
        form = posted(self, search)
        if problem and self.is_htmx:
            raise Refused(problem, rule="search", status=422)
        self.set_status(422 if problem else 200)
        await show(self, form, problem=problem, is_part=self.is_htmx)

    async def _asked_experiments(self) -> tuple[list[str], list[str]]:
        """Looks up the experiments of a deep link; gives the ids, and a sentence for each that cannot be had."""
        ids, proposals = asked_for(self, "experiment"), asked_for(self, "proposal")
        dois = [bare_doi(doi) for doi in asked_for(self, "doi")]
        found = dict(await ask(self.portal.store.experiments.get, ids)) if ids else {}
        if proposals or dois:
            # A DOI has no capital letters of its own, and people do not type a proposal's as the catalogue does.
            wanted = [
                sorted({text for one in many for text in (one, one.lower(), one.upper())}) for many in (proposals, dois)
            ]
            found |= {e.id: e for e in await ask(self.portal.store.experiments.find, *wanted)}
        names = {text.casefold() for e in found.values() for text in (e.id, e.proposal, e.doi)}
        missing = [
            f"{text}: there is no such experiment in the catalogue. Check the number, or search for it below."
            for text in [*ids, *proposals, *dois]
            if text.casefold() not in names
        ]
        decisions = {key: may_read(self.me, e, self.portal.today) for key, e in found.items()}
        missing += [decision.sentence for decision in decisions.values() if not decision.allowed]
        return [key for key, decision in decisions.items() if decision.allowed], missing


class Launches(Handler):
    """POST instances: starts what the form says and leads to its progress page; a wrong form comes back filled."""

    async def get(self) -> None:
        self.redirect(self.portal.prefix)

    async def post(self) -> None:
        search, _ = _search_or_problem(self)
        form = posted(self, search)
        try:
            request = form.request()
            instance = await actions.start(self.portal, self.me, self.token, form.server_name, request)
        except Refused as refused:
            self.set_status(refused.status)
            return await show(self, form, problem=refused.sentence, problem_rule=refused.rule)
        return self.redirect(f"{self.portal.prefix}instances/{instance.id}/progress", status=303)


def _search_or_problem(handler: Handler, page: str | None = None) -> tuple[Search, str]:
    try:
        return read_search(handler, page), ""
    except Refused as refused:
        return Search(), refused.sentence


def _with(form: Form, **changes: Any) -> Form:
    return replace(form, **changes)


async def show(
    handler: Handler,
    form: Form,
    *,
    problem: str = "",
    problem_rule: str = "",
    missing: list[str] | None = None,
    last: object = None,
    existing: Instance | None = None,
    is_part: bool = False,
) -> None:
    """Renders the form, or for htmx the parts of it that depend on a choice."""
    portal, account = handler.portal, handler.me
    found = await find(portal, account, form.search)
    chosen = await _chosen(handler, form.experiments)
    offer = await offered(portal, account, [row.experiment for row in chosen], form.environment, form.hardware)
    context: dict[str, Any] = {
        "form": form,
        "chosen": chosen,
        "chosen_ids": {row.experiment.id for row in chosen},
        "found": found,
        "found_rows": words.rows(account, found.experiments, portal.today),
        "found_words": found_words(found),
        "shown_ids": {experiment.id for experiment in found.experiments},
        "environments": offer.environments,
        "places": offer.places,
        "summary": _summary(form, chosen, offer, not account.may_start_without_experiment),
        "must_choose": not account.may_start_without_experiment,
    }
    if is_part:
        return handler.render_page("_parts.html", new_name=bool(handler.get_argument("another_name", "")), **context)
    return handler.render_page(
        "new.html",
        problem=problem,
        problem_in_more=problem_rule in {"name", "notes", "resolution", "keyboard"},
        missing=missing or [],
        last=await _last(handler, last),
        existing=existing,
        full="" if existing else await _full(handler),
        instruments=await ask(portal.store.experiments.instruments, account, portal.today),
        sorts=SORTS,
        sizes=SIZES,
        resolutions=_RESOLUTIONS,
        keyboards=tuple(KEYBOARDS.items()),
        **context,
    )


async def _chosen(handler: Handler, ids: tuple[str, ...]) -> list[words.Row]:
    """Gives the chosen experiments that may be read; the others must not even show their titles."""
    if not ids:
        return []
    known = await ask(handler.portal.store.experiments.get, ids[:100])
    rows = [words.row(handler.me, known[key], handler.portal.today) for key in ids if key in known]
    return [row for row in rows if row.reading.allowed]


def _summary(form: Form, chosen: list[words.Row], offer: Offered, must_choose: bool) -> dict[str, str]:
    data = ", ".join(row.experiment.proposal for row in chosen[:2])
    if len(chosen) > 2:
        data += f" and {len(chosen) - 2} more"
    parts = [data or ("no data yet" if must_choose else "no data"), offer.software, offer.machine_name, form.name]
    return {
        "line": " · ".join(part for part in parts if part),
        "software": offer.software or "choose an environment",
        "machine": offer.machine or "choose a hardware",
        "changed": offer.changed,
        "soon": offer.soon,
        "dot": offer.dot,
    }


async def _full(handler: Handler) -> str:
    """Says early that the quota is used up, before somebody has filled in the form; the start itself checks it."""
    account = handler.me
    if account.quota < 0:
        return ""
    if account.quota == 0:
        return "Your account waits for approval; until then it can start nothing. Ask the user office."
    mine = await ask(handler.portal.store.instances.of_owner, account.id)
    used = sum(1 for instance in mine if instance.want is not Want.GONE)
    if used < account.quota:
        return ""
    return f"You keep {used} of {account.quota} instances. Delete one that you no longer need before you start another."


async def _last(handler: Handler, last: object) -> dict[str, Any] | None:
    """Gives what the last start chose, when all of it can still be had."""
    if not isinstance(last, dict):
        return None
    form = Form(
        experiments=tuple(last.get("experiments", ())),
        environment=str(last.get("environment", "")),
        hardware=str(last.get("hardware", "")),
        resolution=str(last.get("resolution", RESOLUTIONS[0])),
        keyboard=str(last.get("keyboard", "us")),
    )
    chosen = await _chosen(handler, form.experiments)
    menu = handler.portal.menu
    environment = menu.environment(form.environment)
    hardware = menu.size(form.hardware)
    if environment is None or hardware is None or len(chosen) != len(form.experiments):
        return None
    proposals = ", ".join(row.experiment.proposal for row in chosen) or "no data"
    said = f"{environment.name}, {hardware.name}, {proposals}"
    return form.as_options() | {"server_name": form.server_name, "words": said if len(said) < 90 else f"{said[:87]}..."}
