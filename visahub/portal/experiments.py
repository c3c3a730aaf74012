"""The catalogue: its search, which the form and the JSON API share, and the page of one experiment."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from tornado.web import RequestHandler

from ..model.account import Account
from ..model.errors import Refused
from ..model.experiment import Search, SearchPage, Sort
from ..model.policy import may_read
from ..store.database import ask
from . import words
from .base import Handler, Portal
from .metrics import SEARCHES

SEARCH_FIELDS = {
    "text",
    "instrument",
    "first_year",
    "last_year",
    "with_open_data",
    "only_mine",
    "sort",
    "page",
    "page_size",
}
SORTS = (
    (Sort.NEWEST.value, "Newest first"),
    (Sort.OLDEST.value, "Oldest first"),
    (Sort.INSTRUMENT.value, "By instrument"),
    (Sort.PROPOSAL.value, "By proposal"),
)
SIZES = tuple((size, f"{size} a page") for size in (5, 10, 25, 50, 100))


def read_search(handler: RequestHandler, page: str | None = None) -> Search:
    """Reads a search from a request's fields; raises Refused (status 422) with a sentence that names the field."""
    sort = handler.get_argument("sort", "") or Sort.NEWEST.value
    if sort not in set(Sort):
        known = ", ".join(item.value for item in Sort)
        raise Refused(f"There is no order {sort[:40]!a}. Choose one of {known}.", rule="sort", status=422)
    return Search(
        text=_plain(handler, "text"),
        instrument=_plain(handler, "instrument")[:255],
        first_year=_number(handler, "first_year", None),
        last_year=_number(handler, "last_year", None),
        with_open_data=_truth(handler, "with_open_data", True),
        only_mine=_truth(handler, "only_mine", False),
        sort=Sort(sort),
        page=1
        if (asked := _whole(handler.get_argument("page", "") if page is None else page, "page")) is None
        else asked,
        page_size=_number(handler, "page_size", None) or 25,
    )


def _plain(handler: RequestHandler, field: str) -> str:
    return "".join(char if char.isprintable() else " " for char in handler.get_argument(field, "")).strip()


def _number(handler: RequestHandler, field: str, default: int | None) -> int | None:
    return _whole(handler.get_argument(field, ""), field) if handler.get_argument(field, "") else default


def _whole(text: str, field: str) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise Refused(f"{field} must be a whole number, not {text[:40]!a}.", rule=field, status=422)
    return int(text)


def _truth(handler: RequestHandler, field: str, default: bool) -> bool:
    # A check box comes with a hidden "0" before it: the last value counts.
    values = handler.get_arguments(field)
    if not values:
        return default
    if values[-1] not in {"0", "1", "true", "false", "on"}:
        raise Refused(f"{field} must be true or false.", rule=field, status=422)
    return values[-1] in {"1", "true", "on"}


async def find(portal: Portal, account: Account, search: Search) -> SearchPage:
    """Searches as this account; raises Refused (status 429) when it searches too often."""
    portal.searches.take(account.id)
    with SEARCHES.time():
        return await ask(portal.store.experiments.search, search, account, portal.today)


def found_words(found: SearchPage) -> str:
    """Says what is in sight: 26 to 50 of 1,234 experiments."""
    if not found.total:
        return "No experiments"
    if found.pages == 1:
        return "1 experiment" if found.total == 1 else f"{found.total:,} experiments"
    first = (found.search.page - 1) * found.search.page_size + 1
    return f"{first:,} to {first + len(found.experiments) - 1:,} of {found.total:,} experiments"


class Experiments(Handler):
    """GET experiments: the list, or only what was found for htmx."""

    async def get(self) -> None:
        problem = ""
        try:
            search = read_search(self)
        except Refused as refused:
            self.set_status(refused.status)
            search, problem = Search(), refused.sentence
        found = await find(self.portal, self.me, search)
        context: dict[str, Any] = {
            "found": found,
            "found_rows": words.rows(self.me, found.experiments, self.portal.today),
            "found_words": found_words(found),
            "address": self._address,
        }
        if self.is_htmx:
            return self.render_page("_found_links.html", **context)
        instruments = await ask(self.portal.store.experiments.instruments, self.me, self.portal.today)
        return self.render_page(
            "experiments.html",
            problem=problem,
            search=search,
            instruments=instruments,
            sorts=SORTS,
            sizes=SIZES,
            **context,
        )

    def _address(self, page: int) -> str:
        fields = [(k, v) for k in self.request.query_arguments if k != "page" for v in self.get_query_arguments(k)]
        return f"{self.portal.prefix}experiments?{urlencode([*fields, ('page', page)])}"


class ExperimentPage(Handler):
    """GET experiments/{id}: what is known, why it may be read, and the way into it."""

    async def get(self, experiment_id: str) -> None:
        experiments = await ask(self.portal.store.experiments.get, [experiment_id])
        experiment = experiments.get(experiment_id)
        if experiment is None:
            raise unknown_experiment()
        decision = may_read(self.me, experiment, self.portal.today)
        if not decision.allowed:
            raise Refused(decision.sentence, rule=decision.rule)
        row = words.row(self.me, experiment, self.portal.today)
        mine = await ask(self.portal.store.instances.of_owner, self.me.id)
        self.render_page(
            "experiment.html",
            row=row,
            experiment=experiment,
            sees_team=words.may_see_team(self.me, experiment),
            citation=words.citation(row, self.me),
            holders=[instance for instance in mine if experiment.id in instance.request.experiments],
        )


def unknown_experiment() -> Refused:
    return Refused(
        "There is no such experiment in the catalogue. Search for it by its proposal or title.",
        rule="unknown-experiment",
        status=404,
    )
