"""How far a clock was set."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visahub.model.jumps import LARGEST, Reading, counted, jump

THEN = datetime(2028, 2, 28, 23, 59, 55, tzinfo=UTC)


@pytest.mark.parametrize("days", [40, -2])
def test_f16_clock_that_was_set_by_days(days: int) -> None:
    before = Reading(THEN, 100.0)
    after = Reading(THEN + timedelta(days=days, seconds=5), 105.0)
    assert jump(before, after) == timedelta(days=days)


@given(st.floats(0, 10**7), st.floats(-3600, 3600))
def test_f16_time_that_passes_and_small_corrections_are_no_jump(seconds: float, set_by: float) -> None:
    """29 February and the change to summer time are among it: times are UTC."""
    after = Reading(THEN + timedelta(seconds=seconds) + timedelta(seconds=set_by), 100.0 + seconds)
    assert abs(jump(Reading(THEN, 100.0), after)) in {timedelta(0), abs(timedelta(seconds=set_by))}
    if abs(set_by) < 3599:
        assert jump(Reading(THEN, 100.0), after) == timedelta(0)


def test_f16_gap_between_two_hubs() -> None:
    assert counted(timedelta(minutes=59)) == timedelta(0)
    assert counted(LARGEST) == timedelta(0)
    assert counted(timedelta(hours=20)) == timedelta(hours=20)
    assert counted(timedelta(days=-2)) == timedelta(days=-2)
