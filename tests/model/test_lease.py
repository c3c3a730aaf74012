"""Which Hub may work on a database."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from visahub.model.lease import LEASE_SECONDS, Holder, Lease, refusal

NOW = datetime(2026, 11, 26, 9, 0, tzinfo=UTC)
MINE = Holder(deployment="visahub", host="hub1", machine="boot1", pid=100, born="5")
OTHER = replace(MINE, host="hub2", machine="boot2", pid=7)


def held(holder: Holder, seconds: float = 5) -> Lease:
    return Lease(holder=holder, taken=NOW - timedelta(hours=1), renewed=NOW - timedelta(seconds=seconds))


@pytest.mark.parametrize(
    ("lease", "alive", "instances", "said"),
    [
        (None, False, True, ""),
        (held(MINE), True, True, ""),
        (held(replace(MINE, pid=99)), True, True, "process 99 on hub1"),
        (held(replace(MINE, pid=99), 10**9), True, True, "Stop it first."),
        # Killed a moment ago: the next one need not wait.
        (held(replace(MINE, pid=99), 0), False, True, ""),
        (held(OTHER), False, True, "start again in 60 seconds"),
        (held(OTHER, LEASE_SECONDS - 1), False, True, "process 7 on hub2"),
        (held(OTHER, LEASE_SECONDS + 1), False, True, ""),
        # The clock was set back by two days, or is ahead on the other machine.
        (held(OTHER, -2 * 86400), False, True, ""),
        (held(OTHER, -10), False, True, "process 7 on hub2"),
        # Another deployment, also when its Hub is long gone.
        (held(replace(OTHER, deployment="test"), 10**6), False, True, "belongs to the deployment 'test'"),
        (held(replace(OTHER, deployment="test"), 10**6), False, False, ""),
        (held(replace(OTHER, deployment="test"), 1), False, False, "Another Hub works"),
        (held(replace(MINE, deployment="test", pid=99), 1), False, True, "Visahub.database_url"),
    ],
)
def test_f22_who_may_work(lease: Lease | None, alive: bool, instances: bool, said: str) -> None:
    sentence = refusal(lease, MINE, NOW, is_alive=alive, has_instances=instances)
    assert bool(sentence) == bool(said)
    assert said in sentence
