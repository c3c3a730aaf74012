"""Experiments, their storage paths and the questions to the catalogue."""

from __future__ import annotations

from datetime import date
from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visahub.model.errors import Refused
from visahub.model.experiment import Experiment, Member, Search, SearchPage

TODAY = date(2026, 11, 21)


def experiment(**changes: Any) -> Experiment:
    return Experiment(**{"id": "1", "proposal": "11013662", "title": "t", "instrument": "P03"} | changes)


@pytest.mark.parametrize("path", ["", "/data/p1", "/gpfs/exfel/u/usr/FXE/202102/p700002", "/a/..b/c..", "/data/Köln 1"])
def test_good_paths(path: str) -> None:
    assert experiment(path=path).path == path


@pytest.mark.parametrize(
    "path", ["data", "../../etc", "/data/../etc", "/data/..", "/a\nb", "/a\0b", "/" + "x" * 1000, "~"]
)
def test_bad_paths(path: str) -> None:
    with pytest.raises(Refused) as caught:
        experiment(path=path)
    assert caught.value.rule == "storage-path"
    assert "11013662" in caught.value.sentence


@given(st.text(max_size=60))
def test_a_path_is_clean_or_refused(path: str) -> None:
    try:
        kept = experiment(path=path).path
    except Refused:
        return
    assert not kept or (kept.startswith("/") and ".." not in PurePosixPath(kept).parts and kept.isprintable())


def test_data_open_on_their_first_day() -> None:
    one = experiment(public_at=date(2026, 11, 21))
    assert one.is_open(TODAY)
    assert one.embargo_until(TODAY) is None
    assert not one.is_open(date(2026, 11, 20))
    assert one.embargo_until(date(2026, 11, 20)) == TODAY


def test_without_a_day_data_never_open() -> None:
    assert not experiment().is_open(date.max)
    assert experiment().embargo_until(TODAY) is None


def test_members_are_found_by_their_whole_name() -> None:
    one = experiment(team=(Member("alice"),))
    assert one.has_member("alice")
    assert not one.has_member("ali")
    assert not one.has_member("Alice")


@pytest.mark.parametrize(
    "changes",
    [
        {"page": 0},
        {"page": 1_000_001},
        {"page_size": 4},
        {"page_size": 101},
        {"text": "x" * 201},
        {"first_year": 1899},
        {"last_year": 2201},
    ],
)
def test_a_question_has_bounds(changes: dict[str, Any]) -> None:
    with pytest.raises(Refused) as caught:
        Search(**changes)
    assert caught.value.status == 422


@pytest.mark.parametrize(("total", "pages"), [(0, 1), (1, 1), (25, 1), (26, 2), (1000, 40)])
def test_pages(total: int, pages: int) -> None:
    assert SearchPage((), total, Search()).pages == pages
