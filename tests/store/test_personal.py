"""What is stored about a person: each column has its entry, all of it is told, nothing of it outlives an erasure."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path

import pytest

from visahub.flows import privacy
from visahub.flows.privacy import Retention
from visahub.model.account import Account, Identity, Role
from visahub.model.errors import Refused
from visahub.model.experiment import Experiment, Member
from visahub.model.instance import Instance, Phase, Want
from visahub.model.launch import Step
from visahub.model.request import StartRequest
from visahub.store.database import Store
from visahub.store.tables import metadata
from visahub.testing.clock import Clock

PAGE = Path(__file__).parents[2] / "docs" / "privacy.md"
# What nobody else is called, so that it can be looked for everywhere.
NAME, MAIL, SUBJECT = "Zdenka Quixworth", "zdenka.quixworth@example.org", "sub-8f1d77aa"
SAID = ("my-secret-sample", "notes about Quixworth's sample", "log with /home/zq")
WITHOUT_PERSONS = {"experiments", "instruments", "offers", "leases", "tokens"}
# Of the catalogue only what a search reads: it holds the names of the team.
BESIDES = {"experiments.words"}


def enter(store: Store) -> Account:
    person = Identity(
        issuer="https://login.example.org",
        subject=SUBJECT,
        username="zq",
        display_name=NAME,
        email=MAIL,
        roles=frozenset({Role.STAFF}),
        groups=frozenset({"group-of-quixworth"}),
    )
    return store.accounts.enter(person, uid_min=20000)


def lived(store: Store, clock: Clock, account: Account) -> Instance:
    """Somebody starts an instance with words of their own, which fails once and is renamed."""
    raw = {"environment": "python", "hardware": "small", "name": SAID[0], "notes": SAID[1]}
    row = store.instances.admit(
        account=account,
        server_name="ione",
        request=StartRequest.read(raw),
        backend="fake",
        now=clock(),
        deadline=clock() + timedelta(hours=1),
    )
    store.instances.step(row.id, row.attempt, Step(key="account", text=f"Account of {NAME}", percent=5), clock())
    store.instances.note(row.id, SAID[2], clock())
    store.instances.move(row.id, Phase.ERROR, clock(), sentence=f"{SAID[0]} failed", want=Want.OFF)
    store.instances.rename(row.id, "quixworth-again", SAID[1], clock())
    store.preferences.put(account.id, {"last": raw})
    team = (Member("zq", name=NAME),)
    experiment = Experiment(id="e1", proposal="p1", title="t", instrument="P03", start=None, end=None, team=team)
    store.experiments.replace_source("tests", [experiment], clock())
    return row


def everything(store: Store) -> str:
    """Gives all rows of all tables as text."""
    with store.database.read() as connection:
        return "\n".join(
            str(tuple(row)) for table in metadata.sorted_tables for row in connection.execute(table.select())
        )


def gone(store: Store, row: Instance, clock: Clock) -> None:
    store.instances.wish(row.id, Want.GONE, clock())
    store.instances.move(row.id, Phase.GONE, clock())


def test_every_column_has_its_entry_in_the_page() -> None:
    told = set(re.findall(r"^\| `(\w+\.\w+)` \| (?:yes|no) \| [^|]+ \| [^|]+ \|$", PAGE.read_text(), re.M))
    stored = {
        f"{table.name}.{column.name}"
        for table in metadata.sorted_tables
        if table.name not in WITHOUT_PERSONS
        for column in table.columns
    }
    assert told == stored | BESIDES, "docs/privacy.md says what each column holds, why, and how long"


def test_all_of_it_is_told(store: Store, clock: Clock) -> None:
    account = enter(store)
    lived(store, clock, account)
    store.accounts.enter(Identity(issuer="i", subject="other", username="other", display_name="Ozz"), uid_min=20000)
    told = json.dumps(privacy.export(store, account, clock()))
    for text in (NAME, MAIL, SUBJECT, *SAID, "quixworth-again", "group-of-quixworth", '"e1"'):
        assert text in told, text
    assert "Ozz" not in told
    # Each table with persons is there, with each of its columns.
    parsed = json.loads(told)
    for table in metadata.sorted_tables:
        if table.name in WITHOUT_PERSONS:
            continue
        rows = [parsed["account"]] if table.name == "accounts" else parsed[table.name]
        assert rows, table.name
        assert set(rows[0]) == {column.name for column in table.columns}


def test_nothing_is_erased_while_an_instance_exists(store: Store, clock: Clock) -> None:
    account = enter(store)
    row = lived(store, clock, account)
    before = everything(store)
    with pytest.raises(Refused, match="still has 1 instance") as refused:
        privacy.erase(store, "zq", is_dry=False)
    assert row.id in refused.value.sentence
    assert everything(store) == before
    with pytest.raises(Refused, match="no account"):
        privacy.erase(store, "nobody", is_dry=False)


def test_a_dry_run_counts_and_changes_nothing(store: Store, clock: Clock) -> None:
    account = enter(store)
    gone(store, lived(store, clock, account), clock)
    before = everything(store)
    counts = privacy.erase(store, "zq", is_dry=True)
    assert counts["identities"] == counts["preferences"] == counts["members"] == counts["instances"] == 1
    assert counts["instance_events"] > 4
    assert everything(store) == before


def test_no_word_of_an_erased_person_is_left(store: Store, clock: Clock) -> None:
    account = enter(store)
    gone(store, lived(store, clock, account), clock)
    assert NAME in everything(store)
    privacy.erase(store, "zq", is_dry=False)
    left = everything(store)
    for text in (NAME, MAIL, SUBJECT, *SAID, "uixworth"):
        assert text not in left, text
    if store.database.path is not None:
        for file in store.database.path.parent.glob("visahub.sqlite*"):
            assert b"uixworth" not in file.read_bytes(), file.name
    tombstone = store.accounts.named("zq")
    assert tombstone is not None
    assert (tombstone.uid, tombstone.quota, tombstone.roles) == (account.uid, 0, frozenset())
    assert (
        len([row for row in store.instances.by_attempts(_attempts(store)).values() if row.owner_id == account.id]) == 1
    )
    # Neither the name nor the uid is given again.
    with pytest.raises(Refused, match="belongs to another account"):
        enter(store)
    somebody = store.accounts.enter(Identity(issuer="i", subject="new", username="new"), uid_min=20000)
    assert somebody.uid > account.uid
    assert privacy.erase(store, "zq", is_dry=False)["identities"] == 0


def _attempts(store: Store) -> list[str]:
    with store.database.read() as connection:
        return list(
            connection.scalars(
                metadata.tables["instances"].select().with_only_columns(metadata.tables["instances"].c.attempt)
            )
        )


def test_what_is_too_old_is_forgotten_and_nothing_else(store: Store, clock: Clock) -> None:
    account = enter(store)
    old = lived(store, clock, account)
    gone(store, old, clock)
    clock.forward(days=200)
    kept = store.instances.admit(
        account=account,
        server_name="itwo",
        request=StartRequest.read({"environment": "python", "hardware": "small"}),
        backend="fake",
        now=clock(),
        deadline=clock() + timedelta(hours=1),
    )
    store.instances.move(kept.id, Phase.READY, clock())
    keep = Retention(events_months=12, instances_months=12)
    assert privacy.forget(store, keep, clock()) == {"events": 0, "instances": 0}
    clock.forward(days=170)
    store.instances.rename(kept.id, "renamed", "", clock())
    assert privacy.forget(store, keep, clock())["instances"] == 1
    assert store.instances.get(old.id) is None
    assert store.instances.events(old.id) == []
    clock.forward(days=370)
    store.instances.rename(kept.id, "renamed again", "", clock())
    # An instance that exists keeps the events of its present start, however old.
    privacy.forget(store, keep, clock())
    assert [event.kind for event in store.instances.events(kept.id)][:2] == ["starting", "ready"]
    # What a former start left goes: starting, ready, and the first of the two other names.
    store.instances.wish(kept.id, Want.OFF, clock())
    store.instances.move(kept.id, Phase.STOPPED, clock())
    store.instances.admit(
        account=account,
        server_name="itwo",
        request=kept.request,
        backend="fake",
        now=clock(),
        deadline=clock() + timedelta(hours=1),
    )
    assert privacy.forget(store, keep, clock())["events"] == 3
    assert store.instances.events(kept.id)[0].kind == "renamed"


def test_f16_a_clock_far_ahead_forgets_nothing_recent(store: Store, clock: Clock) -> None:
    account = enter(store)
    row = lived(store, clock, account)
    gone(store, row, clock)
    assert privacy.forget(store, Retention(12, 12), clock() + timedelta(days=5 * 366)) == {"events": 0, "instances": 0}
    assert store.instances.get(row.id) is not None


def test_an_empty_database_has_nothing_to_forget(store: Store, clock: Clock) -> None:
    assert privacy.forget(store, Retention(), clock()) == {}
