"""Experiments from a JSON or CSV file: for facilities without a catalogue, for courses and for the demonstration."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Any

from traitlets import Unicode, default

from ..model.account import is_username
from ..model.errors import Refused, Unavailable
from ..model.experiment import Experiment, Member, TeamRole
from .base import Source

_NEEDED = ("id", "proposal", "title", "instrument")
_DATES = ("start", "end", "public_at")
_TEXTS = ("path", "doi", "url", "summary", "licence", "technique")
_COLUMNS = (*_NEEDED, *_DATES, *_TEXTS, "team", "is_sample")
_LONGEST = {"id": 200, "proposal": 200, "instrument": 200, "technique": 200, "licence": 200, "path": 1000}
_LONGEST_TEXT = 5000
_TRUTHS: Mapping[object, bool] = {
    **{True: True, "true": True, "yes": True, "1": True},
    **{None: False, False: False, "": False, "false": False, "no": False, "0": False},
}


class FilesSource(Source):
    """Reads one file: JSON (a list of objects) or CSV (a header, then a row for each experiment), in UTF-8.

    Columns: id, proposal, title, instrument, and as wanted start, end, public_at (dates like 2026-11-21), path, doi,
    url, summary, licence, technique, is_sample and team. A team is a list of {username, name, role} in JSON, and
    `username:name:role; username:name:role` in CSV; roles are pi, member (the default) and local-contact.
    """

    path = Unicode(
        help="The file, its name ending with .json or .csv; a relative one is looked for in the working directory."
    ).tag(config=True)
    data_root = Unicode(
        help="The folder in which relative paths of experiments lie. The default is the folder of the file. "
        "Set it when the data are mounted elsewhere."
    ).tag(config=True)

    @default("id")
    def _default_id(self) -> str:
        return "files"

    def experiments(self, since: datetime | None = None) -> Iterable[Experiment]:
        """Gives all experiments of the file, whatever `since` is: a file does not say when a row was changed."""
        seen: dict[str, int] = {}
        found = []
        for number, row in self._rows():
            experiment = self._experiment(row, number)
            if experiment.id in seen:
                raise self._wrong(number, "id", f"is the same as in {self._place(seen[experiment.id])}")
            seen[experiment.id] = number
            found.append(experiment)
        return found

    def _rows(self) -> list[tuple[int, Mapping[Any, Any]]]:
        file = Path(self.path)
        try:
            text = file.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise self._no_file(f"is not in UTF-8 (byte {error.start}). Save it as UTF-8") from error
        except (OSError, ValueError) as error:
            raise Unavailable(
                f"The catalogue file {self.path!r} cannot be read ({error}). Check FilesSource.path and the file's "
                "permissions; the catalogue stays as it was.",
                retry_seconds=60,
            ) from error
        if self._is_csv:
            return self._csv_rows(text)
        try:
            rows = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise self._no_file(f"is not JSON ({error}). Correct it") from error
        if not isinstance(rows, list):
            raise self._no_file("must hold a list of experiments: [{...}, {...}]. Correct it")
        return list(enumerate(rows, start=1))

    def _csv_rows(self, text: str) -> list[tuple[int, Mapping[Any, Any]]]:
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        try:
            missing = [name for name in _NEEDED if name not in (reader.fieldnames or ())]
            if missing:
                raise self._no_file(
                    f"has no column {', '.join(missing)} in its first line. Separate columns with commas and add it"
                )
            return [(reader.line_num, row) for row in reader]
        except csv.Error as error:
            raise self._no_file(f"is not CSV ({error}, line {reader.line_num}). Correct it") from error

    def _experiment(self, row: object, number: int) -> Experiment:
        if not isinstance(row, Mapping):
            raise self._wrong(number, "", "is not an object with named values")
        for name in row:
            if name is None:
                raise self._wrong(number, "", "has more columns than the first line; put text with commas into quotes")
            if name not in _COLUMNS:
                raise self._wrong(number, str(name), f"is not known; known are {', '.join(_COLUMNS)}")
        values: dict[str, Any] = {name: self._text(row, name, number) for name in (*_NEEDED, *_TEXTS)}
        for name in _NEEDED:
            if not values[name]:
                raise self._wrong(number, name, "is empty; it is needed")
        values |= {name: self._date(row, name, number) for name in _DATES}
        if values["start"] and values["end"] and values["end"] < values["start"]:
            raise self._wrong(number, "end", "lies before the start")
        values["path"] = self._folder(values["path"], number)
        values["team"] = self._team(row.get("team"), number)
        values["is_sample"] = self._truth(row, "is_sample", number)
        return Experiment(**values, source=self.id)

    def _text(self, row: Mapping[str, Any], name: str, number: int) -> str:
        value = row.get(name)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self._wrong(number, name, f"must be text, not {type(value).__name__}; put it into quotes")
        if len(value) > _LONGEST.get(name, _LONGEST_TEXT):
            raise self._wrong(number, name, f"has more than {_LONGEST.get(name, _LONGEST_TEXT)} characters; shorten it")
        if any(not (char.isprintable() or (char in "\r\n\t" and name == "summary")) for char in value):
            raise self._wrong(number, name, "contains control characters; remove them")
        return value.strip()

    def _date(self, row: Mapping[str, Any], name: str, number: int) -> date | None:
        text = self._text(row, name, number)
        try:
            return date.fromisoformat(text) if text else None
        except ValueError:
            raise self._wrong(number, name, f"holds {text[:40]!r}; write a date like 2026-11-21") from None

    def _folder(self, path: str, number: int) -> str:
        if not path:
            return ""
        # An absolute path replaces the root; ".." stays in and is refused by Experiment.
        absolute = str(Path(self.data_root or Path(self.path).parent).absolute() / path)
        try:
            Experiment(id="-", proposal="-", title="-", instrument="-", path=absolute)
        except Refused:
            raise self._wrong(number, "path", "must not contain '..' or control characters") from None
        if absolute == "/":
            raise self._wrong(number, "path", "must not be the whole file system")
        return absolute

    def _truth(self, row: Mapping[str, Any], name: str, number: int) -> bool:
        value = row.get(name)
        value = value.strip().lower() if isinstance(value, str) else value
        if not isinstance(value, str | bool | None) or value not in _TRUTHS:
            raise self._wrong(number, name, "must be true or false")
        return _TRUTHS[value]

    def _team(self, raw: object, number: int) -> tuple[Member, ...]:
        if isinstance(raw, str):
            raw = [_named(part) for part in raw.split(";") if part.strip()]
        if not isinstance(raw, list | None):
            raise self._wrong(number, "team", "must be a list of members")
        members = tuple(self._member(one, number) for one in raw or ())
        twice = {one.username for one in members if [other.username for other in members].count(one.username) > 1}
        if twice:
            raise self._wrong(number, "team", f"has {sorted(twice)[0]!r} more than once")
        return members

    def _member(self, raw: object, number: int) -> Member:
        if not isinstance(raw, Mapping) or not raw.keys() <= {"username", "name", "role"}:
            raise self._wrong(number, "team", "must hold members of username, name and role")
        username, name, role = raw.get("username"), raw.get("name") or "", raw.get("role") or TeamRole.MEMBER.value
        if not isinstance(username, str) or not is_username(username):
            raise self._wrong(number, "team", f"holds {str(username)[:40]!r}, which cannot be a user name")
        if not isinstance(name, str) or len(name) > 200 or not name.isprintable():
            raise self._wrong(number, "team", f"needs a plain name of at most 200 characters for {username!r}")
        try:
            return Member(username, name.strip(), TeamRole(role))
        except ValueError:
            known = ", ".join(one.value for one in TeamRole)
            raise self._wrong(number, "team", f"gives {username!r} a role that is none of {known}") from None

    @property
    def _is_csv(self) -> bool:
        return self.path.lower().endswith(".csv")

    def _place(self, number: int) -> str:
        return f"line {number}" if self._is_csv else f"entry {number}"

    def _wrong(self, number: int, column: str, why: str) -> Refused:
        where = f"{self._place(number)}, column {column!r}" if column else self._place(number)
        return _refused(f"{self.path}, {where}: it {why}. Correct the file; the catalogue stays as it was.")

    def _no_file(self, why: str) -> Refused:
        return _refused(f"{self.path} {why}; the catalogue stays as it was.")


def _named(part: str) -> dict[str, str]:
    """Reads `username:name:role`, of which name and role may be missing."""
    username, _, rest = part.partition(":")
    name, _, role = rest.partition(":")
    return {"username": username.strip(), "name": name.strip(), "role": role.strip()}


def _refused(sentence: str) -> Refused:
    return Refused(sentence, rule="catalogue-file", status=422)
