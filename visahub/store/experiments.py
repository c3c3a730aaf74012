"""Experiments and their teams: written by `flows/mirror.py`, read by the form, the pages and every start."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, Row, bindparam, delete, exists, false, func, insert, select, update

from ..model.account import Account
from ..model.errors import Refused
from ..model.experiment import Experiment, Member, Search, SearchPage, TeamRole
from .engine import Database
from .search import Totals, bare_doi, counting, page_question, readable, words_of
from .tables import experiments, instruments, members

T = TypeVar("T")

_CHUNK = 500
# Changed when what is kept of an experiment changes, so that the next mirror writes all of them again.
_MARK = "1"
# Every field but the team, which has a table of its own.
_FIELDS = tuple(field.name for field in fields(Experiment) if field.name != "team")
_READ = tuple(experiments.c[name] for name in _FIELDS)


@dataclass(frozen=True)
class Changes:
    """What a mirror round changed: numbers of experiments."""

    added: int = 0
    changed: int = 0
    withdrawn: int = 0


class Experiments:
    """The catalogue's mirror."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._totals = Totals()

    def replace_source(self, source: str, found: Iterable[Experiment], now: datetime) -> Changes:
        """Makes a source's experiments equal to `found`, in one transaction; what vanished is marked withdrawn.

        Raises Refused ("foreign-experiment", "same-experiment") when an id belongs to another source, which has not
        withdrawn it, or comes twice. An error of `found` itself passes, and nothing is changed.
        """
        wanted = _by_id(source, found)
        marks = {one.id: _mark(one) for one in wanted.values()}
        with self._database.write() as connection:
            mine = select(experiments.c.id, experiments.c.mark, experiments.c.withdrawn)
            rows = connection.execute(mine.where(experiments.c.source == source)).all()
            kept = {row.id: row.mark for row in rows}
            new = [one for one in wanted.values() if one.id not in kept]
            taken_over = _withdrawn_elsewhere(connection, source, [one.id for one in new])
            added = [one for one in new if one.id not in taken_over]
            changed = [one for one in wanted.values() if one.id in kept and kept[one.id] != marks[one.id]]
            changed += [one for one in new if one.id in taken_over]
            gone = [row.id for row in rows if row.id not in wanted and not row.withdrawn]
            _add_instruments(connection, {one.instrument for one in (*added, *changed)})
            _write(connection, source, added, changed, marks, now)
            for some in _chunks(gone):
                values = {"withdrawn": True, "mark": "", "changed": now}
                connection.execute(update(experiments).where(experiments.c.id.in_(some)).values(values))
        self._totals.clear()
        return Changes(len(added), len(changed), len(gone))

    def get(self, ids: Iterable[str]) -> dict[str, Experiment]:
        """Gives those that exist, withdrawn ones too, by id."""
        found: dict[str, Experiment] = {}
        with self._database.read() as connection:
            for some in _chunks(list(dict.fromkeys(ids))):
                found |= _read(connection, experiments.c.id.in_(some))
        return found

    def find(self, proposals: Iterable[str], dois: Iterable[str]) -> list[Experiment]:
        """Gives the experiments with these proposals or DOIs, whoever may read them; a DOI may be an address."""
        bare = [bare_doi(doi.strip()) for doi in dois]
        forms = {form for doi in bare if doi for form in (doi, doi.lower(), doi.upper())}
        names = {proposal for proposal in proposals if proposal}
        found: dict[str, Experiment] = {}
        with self._database.read() as connection:
            for some in _chunks(sorted(names)):
                found |= _read(connection, experiments.c.proposal.in_(some))
            for some in _chunks(sorted(forms)):
                found |= _read(connection, experiments.c.doi.in_(some))
        return sorted(found.values(), key=lambda one: (one.proposal, one.id))

    def search(self, search: Search, account: Account, today: date) -> SearchPage:
        """Answers one question as this account on this day; what has no dates yet is among the answers."""
        with self._database.read() as connection:
            rows = connection.execute(page_question(search, account, today)).all()
            ids = [row.id for row in rows]
            if rows and rows[0].total is not None:
                total = rows[0].total
            elif rows or search.page > 1:
                total = self._totals.of(connection, counting(search, account, today))
            else:
                total = 0
            found = _read(connection, experiments.c.id.in_(ids)) if ids else {}
        # PostgreSQL answers each question anew: what was withdrawn in between is no longer among the rows.
        return SearchPage(tuple(found[one] for one in ids if one in found), total, search)

    def instruments(self, account: Account, today: date) -> list[str]:
        """Gives the instruments of all that the account may read, by name."""
        with self._database.read() as connection:
            # For each of the few instruments one readable experiment is looked for, not all of them.
            any_readable = exists().where(experiments.c.instrument == instruments.c.name, readable(account, today))
            question = select(instruments.c.name).where(instruments.c.name != "", any_readable)
            return sorted(connection.scalars(question))

    def counts(self) -> dict[str, int]:
        """Gives the number of experiments that are not withdrawn, by source."""
        with self._database.read() as connection:
            question = select(experiments.c.source, func.count()).where(experiments.c.withdrawn == false())
            return {row[0]: row[1] for row in connection.execute(question.group_by(experiments.c.source))}

    def count(self) -> int:
        """Gives the number of experiments that are not withdrawn."""
        with self._database.read() as connection:
            question = select(func.count()).select_from(experiments).where(experiments.c.withdrawn == false())
            return connection.scalar(question) or 0


def _add_instruments(connection: Connection, names: set[str]) -> None:
    new = names - set(connection.scalars(select(instruments.c.name)))
    if new:
        connection.execute(insert(instruments), [{"name": name} for name in sorted(new)])


def _by_id(source: str, found: Iterable[Experiment]) -> dict[str, Experiment]:
    wanted: dict[str, Experiment] = {}
    for experiment in found:
        if experiment.id in wanted:
            raise Refused(
                f"The source {source!r} gives the experiment {experiment.id[:80]!r} twice. Nothing was changed; give "
                "each experiment an id of its own.",
                rule="same-experiment",
                status=409,
            )
        wanted[experiment.id] = experiment
    return wanted


def _withdrawn_elsewhere(connection: Connection, source: str, ids: list[str]) -> set[str]:
    """Gives those ids that another source has given up; raises Refused for one that it has not.

    So a source may be renamed: an empty mirror of the old name withdraws all, the new name then takes them over.
    """
    free: set[str] = set()
    columns = (experiments.c.id, experiments.c.source, experiments.c.withdrawn)
    for some in _chunks(ids):
        for row in connection.execute(select(*columns).where(experiments.c.id.in_(some))):
            if not row.withdrawn:
                raise Refused(
                    f"The experiment {row.id[:80]!r} of the source {source!r} already belongs to the source "
                    f"{row.source!r}. Nothing was changed; give one of the two sources ids of its own.",
                    rule="foreign-experiment",
                    status=409,
                )
            free.add(row.id)
    return free


def _write(
    connection: Connection,
    source: str,
    added: Sequence[Experiment],
    changed: Sequence[Experiment],
    marks: dict[str, str],
    now: datetime,
) -> None:
    for some in _chunks([one.id for one in changed]):
        connection.execute(delete(members).where(members.c.experiment_id.in_(some)))
    same = update(experiments).where(experiments.c.id == bindparam("this"))
    for many in _chunks(changed):
        rows = [_row(one, source, marks[one.id], now) | {"this": one.id} for one in many]
        connection.execute(same.values({name: bindparam(name) for name in rows[0] if name != "this"}), rows)
    for many in _chunks(added):
        connection.execute(insert(experiments), [_row(one, source, marks[one.id], now) for one in many])
    for team in _chunks([row for one in (*added, *changed) for row in _team(one)]):
        connection.execute(insert(members), team)


def _read(connection: Connection, condition: ColumnElement[bool]) -> dict[str, Experiment]:
    rows = connection.execute(select(*_READ).where(condition)).all()
    teams: dict[str, list[Member]] = {row.id: [] for row in rows}
    for some in _chunks(list(teams)):
        question = select(members).where(members.c.experiment_id.in_(some)).order_by(members.c.position)
        for row in connection.execute(question):
            # Absent when the experiment came between the two questions.
            teams.setdefault(row.experiment_id, []).append(Member(row.username, row.name, TeamRole(row.role)))
    return {row.id: _experiment(row, tuple(teams[row.id])) for row in rows}


def take_name_out(connection: Connection, username: str) -> None:
    """Takes somebody's name out of all teams and of what a search reads; the user name stays, since it gives access."""
    connection.execute(update(members).where(members.c.username == username).values(name=""))
    ids = list(connection.scalars(select(members.c.experiment_id).where(members.c.username == username).distinct()))
    for some in _chunks(ids):
        for key, experiment in _read(connection, experiments.c.id.in_(some)).items():
            found = words_of(experiment)
            connection.execute(update(experiments).where(experiments.c.id == key).values(words=found))


def _chunks(items: Sequence[T]) -> list[Sequence[T]]:
    return [items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK)]


def _mark(experiment: Experiment) -> str:
    """Gives a short text that differs when anything differs but the source, which the caller gives."""
    values = [getattr(experiment, field) for field in _FIELDS if field != "source"]
    said = ascii((_MARK, values, [(member.username, member.name, member.role.value) for member in experiment.team]))
    return hashlib.blake2b(said.encode(), digest_size=16).hexdigest()


def _row(experiment: Experiment, source: str, mark: str, now: datetime) -> dict[str, Any]:
    row = {field: getattr(experiment, field) for field in _FIELDS}
    return row | {"source": source, "mark": mark, "words": words_of(experiment), "changed": now}


def _team(experiment: Experiment) -> list[dict[str, Any]]:
    return [
        {
            "experiment_id": experiment.id,
            "position": position,
            "username": member.username,
            "name": member.name,
            "role": member.role.value,
        }
        for position, member in enumerate(experiment.team)
    ]


def _experiment(row: Row[Any], team: tuple[Member, ...]) -> Experiment:
    return Experiment(**{field: getattr(row, field) for field in _FIELDS}, team=team)
