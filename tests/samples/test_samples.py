"""The sample catalogue and accounts: what the demonstration shows, by the rules of the real thing."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from visahub.model.account import Account, Identity, Role
from visahub.model.experiment import Experiment
from visahub.model.policy import may_choose, may_read
from visahub.sources.files import FilesSource

SAMPLES = Path(__file__).parents[2] / "share" / "samples"
TODAY = date(2026, 11, 21)


@pytest.fixture(scope="module")
def experiments() -> dict[str, Experiment]:
    source = FilesSource(path=str(SAMPLES / "experiments.json"), data_root="/srv/data")
    return {one.id: one for one in source.experiments()}


@pytest.fixture(scope="module")
def accounts() -> dict[str, Account]:
    rows: list[dict[str, Any]] = json.loads((SAMPLES / "accounts.json").read_text())
    return {row["username"]: account(row, number) for number, row in enumerate(rows, start=1)}


def account(row: dict[str, Any], number: int) -> Account:
    identity = Identity(
        issuer="samples",
        subject=row["username"],
        username=row["username"],
        display_name=row["display_name"],
        email=row["email"],
        roles=frozenset(Role(role) for role in row["roles"]),
        groups=frozenset(row["groups"]),
        instruments=frozenset(row["instruments"]),
        quota=row["quota"],
    )
    return Account(
        id=number,
        username=identity.username,
        uid=20000 + number,
        gid=20000 + number,
        email=identity.email,
        roles=identity.roles,
        groups=identity.groups,
        instruments=identity.instruments,
        quota=row["quota"],
    )


@pytest.mark.parametrize(
    ("proposal", "title", "instrument", "start", "end"),
    [
        ("p700002", "FXE example data", "EUXFEL-XMPL", date(2021, 9, 27), date(2021, 12, 30)),
        ("p700001", "Detector Calibration Test Data", "EUXFEL-XMPL", date(2019, 1, 19), date(2019, 1, 20)),
        (
            "CXIDB-ID-98",
            "ExPaNDS Reference Data for Serial Crystallography",
            "EUXFEL-SPB/SFX",
            date(2018, 8, 30),
            date(2018, 9, 3),
        ),
        (
            "CXIDB-ID-103",
            "Advances in long-wavelength native phasing at X-ray free-electron lasers",
            "SwissFEL-Alvra",
            date(2018, 8, 7),
            date(2018, 8, 10),
        ),
        ("p700000", "Example Data", "EUXFEL-XMPL", date(2017, 11, 8), date(2017, 12, 31)),
    ],
)
def test_the_public_experiments(
    experiments: dict[str, Experiment], proposal: str, title: str, instrument: str, start: date, end: date
) -> None:
    one = experiments[proposal]
    assert (one.title, one.instrument, one.start, one.end) == (title, instrument, start, end)
    assert one.is_open(TODAY)
    assert not one.is_sample
    assert one.path == f"/srv/data/{proposal}"


def test_invented_ones_say_so(experiments: dict[str, Experiment]) -> None:
    invented = [one for one in experiments.values() if one.is_sample]
    assert len(invented) == len(experiments) - 5
    assert all(one.title.startswith("Sample: ") for one in invented)
    assert all(not one.is_open(TODAY) for one in invented)
    assert all(one.public_at is None or one.public_at.year == 2029 for one in invented)


def test_teams_are_sample_accounts(experiments: dict[str, Experiment], accounts: dict[str, Account]) -> None:
    assert {member.username for one in experiments.values() for member in one.team} <= accounts.keys()


def test_every_role_has_an_account(accounts: dict[str, Account]) -> None:
    assert {role for one in accounts.values() for role in one.roles} == set(Role)
    assert not accounts["alice"].roles
    assert not accounts["bob"].roles
    assert accounts["isabel"].instruments == {"P03"}
    assert all(one.email == f"{one.username}@example.org" for one in accounts.values())
    assert accounts["alice"].quota > 0


def test_what_alice_may_do(experiments: dict[str, Experiment], accounts: dict[str, Account]) -> None:
    rules = {one.id: may_choose(accounts["alice"], one, TODAY).rule for one in experiments.values()}
    assert rules["p700002"] == "open-data"
    assert rules["11013662"] == "team"
    assert rules["11015377"] == "no-dates"
    assert rules["11013900"] == "embargo"
    assert rules["11015001"] == "embargo"
    assert may_read(accounts["bob"], experiments["11013662"], TODAY).rule == "team"


def test_the_instrument_scientist_reads_all_of_the_instrument(
    experiments: dict[str, Experiment], accounts: dict[str, Account]
) -> None:
    at_p03 = [one for one in experiments.values() if one.instrument == "P03"]
    assert len(at_p03) >= 3
    assert all(may_read(accounts["isabel"], one, TODAY).allowed for one in at_p03)
    assert not may_read(accounts["isabel"], experiments["11014120"], TODAY).allowed
