"""One Hub at a time has the database, on both kinds of database."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from visahub.model.errors import Refused
from visahub.model.lease import Holder
from visahub.store.database import Store

ONE = Holder(deployment="visahub", host="hub1", machine="boot1", pid=100, born="5")
TWO = replace(ONE, host="hub2", machine="boot2")


def now() -> datetime:
    return datetime.now(UTC)


def dead(_: Holder) -> bool:
    return False


def test_f22_one_at_a_time(store: Store, other: Store) -> None:
    assert store.leases.take(ONE, now(), dead) is None
    with pytest.raises(Refused, match="process 100 on hub1") as refused:
        other.leases.take(TWO, now(), dead)
    assert refused.value.rule == "two-hubs"
    assert store.leases.renew(ONE, now())
    assert not other.leases.renew(TWO, now())
    other.leases.release(TWO, now())
    lease = other.leases.held()
    assert lease is not None and lease.holder == ONE
    store.leases.release(ONE, now())
    assert store.leases.held() is None
    before = other.leases.take(TWO, now(), lambda _: True)
    assert before is not None and before.holder.is_free
    assert not store.leases.renew(ONE, now())


def test_f22_dead_hub_of_the_same_machine_is_followed_at_once(store: Store) -> None:
    store.leases.take(ONE, now(), dead)
    asked = []
    before = store.leases.take(replace(ONE, pid=101), now(), lambda holder: bool(asked.append(holder)))
    assert before is not None and before.holder == ONE and asked == [ONE]
    with pytest.raises(Refused):
        store.leases.take(replace(ONE, pid=102), now(), lambda _: True)


def test_f22_other_machine_waits_until_the_lease_is_over(store: Store) -> None:
    store.leases.take(ONE, now(), dead)
    with pytest.raises(Refused, match="60 seconds"):
        store.leases.take(TWO, now(), dead)
    with store.database.write() as connection:
        past = now() - timedelta(seconds=61)
        past_text = past.replace(tzinfo=None) if store.database.is_sqlite else past
        connection.execute(text("UPDATE leases SET renewed = :past"), {"past": str(past_text)})
    before = store.leases.take(TWO, now(), dead)
    assert before is not None and before.holder == ONE
    # The first one, which had only been asleep, notices.
    assert not store.leases.renew(ONE, now())


def test_f22_two_at_the_same_moment(store: Store, other: Store) -> None:
    with ThreadPoolExecutor(2) as both:
        tries = [both.submit(one.leases.take, holder, now(), dead) for one, holder in ((store, ONE), (other, TWO))]
        refused = [one.exception() for one in tries]
    assert sum(error is None for error in refused) == 1
    assert sum(isinstance(error, Refused) for error in refused) == 1
