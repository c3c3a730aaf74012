"""Homes: links to the data of experiments, and what users have put there themselves."""

from __future__ import annotations

import os

from .conftest import IS_ROOT, LocalWorld
from .contract import started
from .local_world import as_root, experiment, experiments, runnable

pytestmark = runnable


async def test_experiments_are_linked(local: LocalWorld) -> None:
    one, two = experiment(local, "e1", "p700001"), experiment(local, "e2", "p700002")
    launch = local.launch(experiments=(one, two))
    await started(local.backend(), launch)
    folder = local.home() / "experiments"
    assert os.readlink(folder / "p700001") == one.path
    assert (folder / "p700002" / "scan.h5").read_text() == "e2"
    rows = experiments(local, launch)
    assert [row["link"] for row in rows] == ["experiments/p700001", "experiments/p700002"]
    assert set(rows[0]) == set(
        ["proposal", "title", "instrument", "start", "end", "team", "doi", "path", "link", "note"]
    )
    if IS_ROOT:
        assert (folder / "p700001").lstat().st_uid == local.ada.uid


async def test_missing_data_are_said_and_do_not_stop_the_start(local: LocalWorld) -> None:
    launch = local.launch(experiments=(experiment(local, "e1", "p700001", has_data=False),))
    steps = await started(local.backend(), launch)
    assert "p700001" in steps[2].text
    assert "p700001" not in os.listdir(local.home() / "experiments")
    assert "missing" in experiments(local, launch)[0]["note"]


async def test_two_experiments_of_one_proposal_get_two_names(local: LocalWorld) -> None:
    chosen = (experiment(local, "e1", "p700001"), experiment(local, "e/2", "p700001"))
    launch = local.launch(experiments=chosen)
    await started(local.backend(), launch)
    links = [row["link"] for row in experiments(local, launch)]
    assert links == ["experiments/p700001", "experiments/p700001-e-2"]
    assert os.readlink(local.home() / links[1]) == chosen[1].path


async def test_links_no_longer_chosen_go_but_the_user_s_own_stay(local: LocalWorld) -> None:
    backend = local.backend()
    first = local.launch(experiments=(experiment(local, "e1", "p1"), experiment(local, "e2", "p2")))
    await started(backend, first)
    await backend.stop(first.attempt, {})
    folder = local.home() / "experiments"
    (folder / "mine").symlink_to("/usr")
    (folder / "p2").unlink()
    (folder / "p2").symlink_to("/etc")
    (folder / "notes").write_text("mine too")
    await started(backend, local.launch(experiments=(experiment(local, "e3", "p3"),)))
    assert sorted(path.name for path in folder.iterdir() if path.name[0] != ".") == ["mine", "notes", "p2", "p3"]
    assert os.readlink(folder / "p2") == "/etc"


async def test_links_of_another_running_instance_stay(local: LocalWorld) -> None:
    backend = local.backend()
    await started(backend, local.launch(experiments=(experiment(local, "e1", "p1"),)))
    second = local.launch(experiments=(experiment(local, "e2", "p1"), experiment(local, "e3", "p3")))
    await started(backend, second)
    folder = local.home() / "experiments"
    assert (folder / "p1" / "scan.h5").read_text() == "e1"
    assert [row["link"] for row in experiments(local, second)] == ["experiments/p1-e2", "experiments/p3"]


async def test_a_stop_and_a_delete_keep_the_home(local: LocalWorld) -> None:
    backend = local.backend()
    launch = local.launch()
    await started(backend, launch)
    (local.home() / "result.txt").write_text("42")
    await backend.stop(launch.attempt, {})
    await backend.delete(launch.attempt, {})
    assert (local.home() / "result.txt").read_text() == "42"
    assert local.runs() == []


async def test_what_is_in_the_way_of_the_links_is_said(local: LocalWorld) -> None:
    backend = local.backend()
    first = local.launch()
    await started(backend, first)
    await backend.stop(first.attempt, {})
    folder = local.home() / "experiments"
    (folder / ".visahub-links.json").unlink()
    folder.rmdir()
    folder.write_text("a file")
    launch = local.launch(experiments=(experiment(local, "e1", "p1"),))
    await started(backend, launch)
    assert "cannot be used" in experiments(local, launch)[0]["note"]
    assert folder.read_text() == "a file"


@as_root
async def test_a_link_planted_as_experiments_folder_is_followed_with_the_user_s_rights_only(local: LocalWorld) -> None:
    backend = local.backend()
    first = local.launch()
    await started(backend, first)
    await backend.stop(first.attempt, {})
    secret = local.root / "secret"
    secret.mkdir(mode=0o700)
    folder = local.home() / "experiments"
    (folder / ".visahub-links.json").unlink()
    folder.rmdir()
    folder.symlink_to(secret)
    launch = local.launch(experiments=(experiment(local, "e1", "p1"),))
    await started(backend, launch)
    assert list(secret.iterdir()) == []
    assert experiments(local, launch)[0]["link"] == ""


@as_root
async def test_data_that_the_account_may_not_read_are_not_shown_as_there(local: LocalWorld) -> None:
    closed = experiment(local, "e1", "p1")
    (local.root / "facility").chmod(0o700)
    launch = local.launch(experiments=(closed,))
    await started(local.backend(), launch)
    assert "not open to you" in experiments(local, launch)[0]["note"]
