"""Search among experiments: the rule of `model.policy.may_read` and the words of a question, in SQL."""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from datetime import date
from typing import Any

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Connection,
    Select,
    and_,
    false,
    func,
    null,
    or_,
    select,
    union_all,
)

from ..model.account import Account, Role
from ..model.experiment import Experiment, Search, Sort
from .tables import experiments, members, storable

# More words than anybody types; the rest of a pasted text is not looked at.
_MOST_WORDS = 100
# Up to here a page is put together from the first of each reason to read.
_NEAR = 250
# How people paste a DOI. What is left of the word is looked for, so it is found wherever the whole word would be.
_DOI_STARTS = ("https://doi.org/", "http://doi.org/", "https://dx.doi.org/", "http://dx.doi.org/", "doi.org/", "doi:")


def plain(text: str) -> str:
    """Gives small letters without accents, so that `Zürich` is found by `zurich`."""
    if text.isascii():
        # Most of a catalogue, and the same in a fiftieth of the time.
        return text.lower().replace("\x00", "\ufffd")
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
    if account.has(Role.ADMIN):
        return _exists()
    return and_(_exists(), or_(*_reasons(account, today, with_open_data=with_open_data)))


def _exists() -> ColumnElement[bool]:
    return experiments.c.withdrawn == false()


def _reasons(account: Account, today: date, *, with_open_data: bool) -> list[ColumnElement[bool]]:
    """Gives why somebody who is no admin may read; the quickest to decide comes first."""
    reasons: list[ColumnElement[bool]] = []
    if with_open_data:
        reasons.append(experiments.c.public_at <= today)
    if account.instruments:
        reasons.append(experiments.c.instrument.in_(sorted(account.instruments)))
    reasons.append(_in_team(account.username))
    return reasons


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


def page_question(search: Search, account: Account, today: date) -> Select[Any]:
    """Asks for the ids of one page in order.

    Where every text has to be read, the page tells the number of all, too, in its column `total`: one pass, not two.
    """
    has_text = bool(words(search.text))
    total = func.count().over() if has_text else null()
    is_near = search.page * search.page_size <= _NEAR
    conditions = _conditions(search, account, today)
    if is_near and not has_text and not account.has(Role.ADMIN):
        conditions = [experiments.c.id.in_(_first_of_each(search, account, today))]
    return (
        select(experiments.c.id, total.label("total"))
        .where(*conditions)
        .order_by(*_ORDERS[search.sort])
        .limit(search.page_size)
        .offset((search.page - 1) * search.page_size)
    )


def _first_of_each(search: Search, account: Account, today: date) -> CompoundSelect[Any]:
    """Asks for the first of what may be read for each reason; among them are the first of all.

    The newest data are mostly under embargo: to go through them in order, looking up the team of each, takes longer.
    """
    matching = [*_matching(search), *([_in_team(account.username)] if search.only_mine else [])]
    firsts = [
        select(experiments.c.id)
        .where(_exists(), reason, *matching)
        .order_by(*_ORDERS[search.sort])
        .limit(search.page * search.page_size)
        .subquery()
        for reason in _reasons(account, today, with_open_data=search.with_open_data)
    ]
    return union_all(*(select(first.c.id) for first in firsts))


def _conditions(search: Search, account: Account, today: date) -> list[ColumnElement[bool]]:
    conditions = [readable(account, today, with_open_data=search.with_open_data), *_matching(search)]
    if search.only_mine:
        conditions.append(_in_team(account.username))
    return conditions


@dataclass(frozen=True)
class Counting:
    """How many experiments a question finds: the sum of what everybody sees alike and of what only this account sees.

    The first is most of a catalogue, and can be kept under `key`; the second is little. Either may be absent.
    """

    key: Hashable = None
    common: Select[Any] | None = None
    own: Select[Any] | None = None


def counting(search: Search, account: Account, today: date) -> Counting:
    """Asks for the number of all that a question finds."""
    # Who changes the text changes the question, and a text is never common to many.
    if search.only_mine or words(search.text) or not (search.with_open_data or account.has(Role.ADMIN)):
        return Counting(own=_count(*_conditions(search, account, today)))
    filters = (search.instrument, search.first_year, search.last_year, today)
    exists, matching = _exists(), _matching(search)
    if account.has(Role.ADMIN):
        return Counting(("all", *filters), _count(exists, *matching))
    public = experiments.c.public_at <= today
    closed = or_(experiments.c.public_at > today, experiments.c.public_at.is_(None))
    own = _count(readable(account, today, with_open_data=False), closed, *matching)
    return Counting(("open", *filters), _count(exists, public, *matching), own)


def _count(*conditions: ColumnElement[bool]) -> Select[Any]:
    return select(func.count()).select_from(experiments).where(*conditions)


class Totals:
    """Keeps for a short time how many experiments everybody sees: counting 100,000 takes longer than the whole page."""

    seconds = 30.0
    _most = 1000

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: dict[Hashable, tuple[float | None, int]] = {}

    def clear(self) -> None:
        """Forgets everything: this process has changed the catalogue. Another one's change is seen after `seconds`."""
        self._kept = {}

    def of(self, connection: Connection, asked: Counting) -> int:
        """Gives a number, from the database or as it was a moment ago."""
        own: int = 0 if asked.own is None else connection.execute(asked.own).scalar_one()
        return own if asked.common is None else own + self._common(connection, asked.key, asked.common)

    def _common(self, connection: Connection, key: Hashable, question: Select[Any]) -> int:
        kept, now = self._kept, self._clock()
        at, number = kept.get(key, (None, 0))
        if at is None or now - at >= self.seconds:
            number = connection.execute(question).scalar_one()
            # Keys hold what people choose.
            if len(kept) >= self._most:
                kept.clear()
            # Into the table from before the question: one that was cleared meanwhile stays so.
            kept[key] = (now, number)
        return number
