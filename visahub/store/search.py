"""Search among experiments: the rule of `model.policy.may_read` and the words of a question, in SQL."""

from __future__ import annotations

import unicodedata
from datetime import date
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, false, func, null, or_, select

from ..model.account import Account, Role
from ..model.experiment import Experiment, Search, Sort
from .tables import experiments, members, storable

# More words than anybody types; the rest of a pasted text is not looked at.
_MOST_WORDS = 100
# How people paste a DOI. What is left of the word is looked for, so it is found wherever the whole word would be.
_DOI_STARTS = ("https://doi.org/", "http://doi.org/", "https://dx.doi.org/", "http://dx.doi.org/", "doi.org/", "doi:")


def plain(text: str) -> str:
    """Gives small letters without accents, so that `Zürich` is found by `zurich`."""
    apart = unicodedata.normalize("NFKD", storable(text))
    # Again after the folding: that of one letter may be two, and one of them an accent.
    apart = unicodedata.normalize("NFKD", apart.casefold())
    return "".join(char for char in apart if not unicodedata.combining(char)).replace("\x00", "\ufffd")


def words_of(experiment: Experiment) -> str:
    """Gives all that a search looks at, as one plain text."""
    parts = [
        experiment.proposal,
        experiment.title,
        experiment.instrument,
        experiment.doi,
        experiment.technique,
        *(f"{member.name} {member.username}" for member in experiment.team),
        experiment.summary,
    ]
    return plain("\n".join(parts))


def bare_doi(text: str) -> str:
    """Gives a DOI without the address or the `doi:` before it."""
    for start in _DOI_STARTS:
        if text.casefold().startswith(start):
            return text[len(start) :]
    return text


def words(text: str) -> list[str]:
    """Gives the words of a question, each of which must occur."""
    found = (bare_doi(word) for word in plain(text).split())
    return list(dict.fromkeys(word for word in found if word))[:_MOST_WORDS]


def _in_team(username: str) -> ColumnElement[bool]:
    return experiments.c.id.in_(select(members.c.experiment_id).where(members.c.username == username))


def readable(account: Account, today: date, *, with_open_data: bool = True) -> ColumnElement[bool]:
    """States `model.policy.may_read` in SQL; a property test keeps the two equal.

    Without open data, what the account reads for no other reason is left out.
    """
    exists = experiments.c.withdrawn == false()
    if account.has(Role.ADMIN):
        return exists
    # The quickest to decide comes first.
    reasons: list[ColumnElement[bool]] = []
    if with_open_data:
        reasons.append(experiments.c.public_at <= today)
    if account.instruments:
        reasons.append(experiments.c.instrument.in_(sorted(account.instruments)))
    reasons.append(_in_team(account.username))
    return and_(exists, or_(*reasons))


def _matching(search: Search) -> list[ColumnElement[bool]]:
    found = [experiments.c.words.contains(word, autoescape=True) for word in words(search.text)]
    if search.instrument:
        found.append(experiments.c.instrument == search.instrument)
    if search.first_year is not None:
        found.append(experiments.c.start >= date(search.first_year, 1, 1))
    if search.last_year is not None:
        found.append(experiments.c.start <= date(search.last_year, 12, 31))
    return found


_NEWEST = (experiments.c.start.desc().nulls_last(), experiments.c.id.desc())
# Each order is total, so that no experiment is on two pages or on none.
_ORDERS = {
    Sort.NEWEST: _NEWEST,
    Sort.OLDEST: (experiments.c.start.asc().nulls_last(), experiments.c.id),
    Sort.INSTRUMENT: (experiments.c.instrument, *_NEWEST),
    Sort.PROPOSAL: (experiments.c.proposal, experiments.c.id),
}


def questions(search: Search, account: Account, today: date) -> tuple[Select[Any], Select[Any]]:
    """Gives two questions: the ids of one page in order, and how many there are in all.

    Where every text has to be read, the page tells the number, too, in its column `total`: one pass instead of two.
    """
    conditions = [readable(account, today, with_open_data=search.with_open_data), *_matching(search)]
    if search.only_mine:
        conditions.append(_in_team(account.username))
    total = func.count().over() if words(search.text) else null()
    page = (
        select(experiments.c.id, total.label("total"))
        .where(*conditions)
        .order_by(*_ORDERS[search.sort])
        .limit(search.page_size)
        .offset((search.page - 1) * search.page_size)
    )
    return page, select(func.count()).select_from(experiments).where(*conditions)
