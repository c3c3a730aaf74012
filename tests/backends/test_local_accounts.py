"""Unix accounts: made once, and never taken from somebody else."""

from __future__ import annotations

import os
import pwd
from dataclasses import replace

import pytest

from visahub.model.errors import Refused

from .conftest import LocalWorld
from .contract import started
from .local_world import as_root, report, runnable

pytestmark = runnable


@as_root
async def test_an_account_gets_its_own_unix_account_once(local: LocalWorld) -> None:
    for _ in range(2):
        await started(local.backend(), local.launch())
    entry = pwd.getpwnam(local.ada.username)
    assert (entry.pw_uid, entry.pw_gid, entry.pw_shell) == (local.ada.uid, local.ada.gid, "/bin/bash")
    assert local.home().stat().st_mode & 0o777 == 0o700
    assert local.home().stat().st_uid == local.ada.uid


async def test_a_hub_may_do_without_unix_accounts(local: LocalWorld) -> None:
    launch = local.launch()
    await started(local.backend(use_unix_accounts=False), launch)
    assert report(local, launch)["ids"] == [os.getuid()] * 3 + [os.getgid()] * 3
    assert local.ada.username not in {entry.pw_name for entry in pwd.getpwall()}


@as_root
@pytest.mark.parametrize(
    ("username", "uid"),
    [("daemon", 61_500), ("root", 0), ("vhnobody", 65_534), ("vhroot", 0), ("vhlow", 999)],
)
async def test_the_accounts_of_others_are_not_used(local: LocalWorld, username: str, uid: int) -> None:
    before = [tuple(entry) for entry in pwd.getpwall()]
    account = replace(local.ada, username=username, uid=uid, gid=uid)
    with pytest.raises(Refused) as raised:
        await started(local.backend(), local.launch(account=account))
    assert raised.value.rule == "unix-account"
    assert [tuple(entry) for entry in pwd.getpwall()] == before


@as_root
async def test_a_home_of_somebody_else_is_refused(local: LocalWorld) -> None:
    (local.root / "home").mkdir()
    local.home().symlink_to("/etc")
    with pytest.raises(Refused, match="not a folder of"):
        await started(local.backend(), local.launch())


@pytest.mark.parametrize("name", ["../root", "Ada", "a b", "", "x" * 40, "ada\nroot"])
async def test_an_account_that_cannot_be_is_refused(local: LocalWorld, name: str) -> None:
    launch = local.launch()
    with pytest.raises(Refused):
        await started(local.backend(), replace(launch, account=replace(launch.account, username=name)))
