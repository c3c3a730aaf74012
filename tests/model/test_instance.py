"""Which move is allowed from which state, and the names."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visahub.model.errors import Refused
from visahub.model.instance import (
    MOVES,
    WORDS,
    Instance,
    Phase,
    Want,
    friendly_name,
    new_attempt,
    new_instance_id,
)
from visahub.model.request import StartRequest

NOW = datetime(2026, 11, 21, 9, tzinfo=UTC)
LATER = NOW + timedelta(seconds=1)


def instance(phase: Phase = Phase.STARTING, want: Want = Want.ON, name: str = "quiet-beamline") -> Instance:
    return Instance(
        id="iabc",
        owner_id=1,
        owner="alice",
        server_name="iabc",
        request=StartRequest(name=name),
        want=want,
        phase=phase,
        attempt="a",
        backend="fake",
        created=NOW,
        changed=NOW,
        state={"secret": "x"},
    )


@given(st.sampled_from(Phase), st.sampled_from(Phase))
def test_only_listed_moves_are_allowed(old: Phase, new: Phase) -> None:
    row = instance(old)
    if new is old or new in MOVES[old]:
        assert row.moved(new, LATER, sentence="why").phase is new
        assert row.moved(new, LATER).changed == LATER
    else:
        with pytest.raises(Refused) as caught:
            row.moved(new, LATER)
        assert (caught.value.rule, caught.value.status) == ("move", 409)
        assert "quiet-beamline" in caught.value.sentence


def test_every_phase_has_moves_and_words() -> None:
    assert set(MOVES) == set(WORDS) == set(Phase)


def test_every_phase_leads_to_gone_and_gone_to_nothing() -> None:
    reached = {Phase.GONE}
    for _ in Phase:
        reached |= {phase for phase, following in MOVES.items() if following & reached}
    assert reached == set(Phase)
    assert MOVES[Phase.GONE] == frozenset()


def test_what_waits_can_be_deleted_or_fail() -> None:
    for phase in (phase for phase in Phase if phase.is_waiting):
        assert Phase.ERROR in MOVES[phase]
        assert MOVES[phase] & {Phase.DELETING, Phase.GONE}


@pytest.mark.parametrize(
    ("phase", "want", "start", "stop", "delete"),
    [
        (Phase.STARTING, Want.ON, False, True, True),
        (Phase.READY, Want.ON, False, True, True),
        (Phase.READY, Want.OFF, False, False, True),
        (Phase.STOPPING, Want.OFF, False, False, True),
        (Phase.STOPPED, Want.OFF, True, False, True),
        (Phase.STOPPED, Want.ON, True, False, True),
        (Phase.ERROR, Want.ON, True, True, True),
        (Phase.ERROR, Want.GONE, False, False, False),
        (Phase.STOPPED, Want.GONE, False, False, False),
        (Phase.GONE, Want.GONE, False, False, False),
    ],
)
def test_what_may_be_done(phase: Phase, want: Want, start: bool, stop: bool, delete: bool) -> None:
    row = instance(phase, want)
    assert (row.may_start, row.may_stop, row.may_delete) == (start, stop, delete)


def test_an_instance_without_a_name_is_called_by_its_server() -> None:
    assert instance(name="").name == "iabc"


def test_the_backend_s_state_is_not_shown() -> None:
    assert "secret" not in repr(instance())


def test_random_names_are_fit_for_paths_hosts_and_people() -> None:
    attempts = {new_attempt() for _ in range(200)}
    ids = {new_instance_id() for _ in range(200)}
    assert len(attempts) == len(ids) == 200
    assert all(re.fullmatch("[a-z0-9]{26}", attempt) for attempt in attempts)
    assert all(re.fullmatch("i[a-z0-9]{9}", one) for one in ids)
    for _ in range(100):
        name = friendly_name()
        assert re.fullmatch("[a-z]+-[a-z]+", name)
        assert StartRequest.read({"environment": "e", "hardware": "h", "name": name}).name == name
