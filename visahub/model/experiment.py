"""What an experiment is: its proposal, instrument, dates, team, embargo and storage path."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from pathlib import PurePosixPath

from .errors import Refused


class TeamRole(StrEnum):
    """What somebody is in a team."""

    PRINCIPAL_INVESTIGATOR = "pi"
    MEMBER = "member"
    LOCAL_CONTACT = "local-contact"


@dataclass(frozen=True)
class Member:
    """One person of a team; `username` is the account's, `name` is what others read."""

    username: str
    name: str = ""
    role: TeamRole = TeamRole.MEMBER


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One experiment. `id` is unique over all sources (strings, since SciCat's and ICAT's are: visa.md T6).

    `public_at` is the first day on which the data are open to everybody, None while no such day is set.
    `path` is the absolute path of the data, empty when there are none.
    """

    id: str
    proposal: str
    title: str
    instrument: str
    start: date | None = None
    end: date | None = None
    public_at: date | None = None
    team: tuple[Member, ...] = ()
    path: str = ""
    doi: str = ""
    url: str = ""
    summary: str = ""
    licence: str = ""
    technique: str = ""
    source: str = ""
    is_sample: bool = False
    withdrawn: bool = False

    def __post_init__(self) -> None:
        if self.path and not _is_clean(self.path):
            raise Refused(
                f"The storage path of {self.proposal[:80]!r} must be absolute and without '..' or control characters. "
                "Correct it in the catalogue's source.",
                rule="storage-path",
                status=422,
            )

    def has_member(self, username: str) -> bool:
        """Tells whether somebody is in the team."""
        return any(member.username == username for member in self.team)

    def is_open(self, today: date) -> bool:
        """Tells whether the data are open to everybody today."""
        return self.public_at is not None and self.public_at <= today

    def embargo_until(self, today: date) -> date | None:
        """Gives the day on which an embargo ends, None when there is none (or none with an end)."""
        if self.public_at is not None and self.public_at > today:
            return self.public_at
        return None


def _is_clean(path: str) -> bool:
    pure = PurePosixPath(path)
    return pure.is_absolute() and ".." not in pure.parts and path.isprintable() and len(path) <= 1000


class Sort(StrEnum):
    """Orders of a search (visa.md B4)."""

    NEWEST = "newest"
    OLDEST = "oldest"
    INSTRUMENT = "instrument"
    PROPOSAL = "proposal"


MAX_PAGE = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Search:
    """One question to the catalogue: 5 to 100 rows a page, default 25; years compare with the start (visa.md B3-B5)."""

    text: str = ""
    instrument: str = ""
    first_year: int | None = None
    last_year: int | None = None
    with_open_data: bool = True
    only_mine: bool = False
    sort: Sort = Sort.NEWEST
    page: int = 1
    page_size: int = 25

    def __post_init__(self) -> None:
        if not 1 <= self.page <= MAX_PAGE:
            raise Refused("There is no such page. Go back to page 1.", rule="page", status=422)
        if not 5 <= self.page_size <= 100:
            raise Refused("A page shows 5 to 100 experiments. Choose a number between.", rule="page-size", status=422)
        if len(self.text) > 200:
            raise Refused("Search for at most 200 characters.", rule="search-text", status=422)
        for year in (self.first_year, self.last_year):
            if year is not None and not 1900 <= year <= 2200:
                raise Refused("Give years between 1900 and 2200.", rule="year", status=422)


@dataclass(frozen=True)
class SearchPage:
    """One page of answers, best first, and how many there are in all."""

    experiments: tuple[Experiment, ...]
    total: int
    search: Search

    @property
    def pages(self) -> int:
        return max(1, -(-self.total // self.search.page_size))
