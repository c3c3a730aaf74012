"""The Hub's door: the same rules at form, address and JSON; nothing started or stored by what is refused."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from html import unescape
from typing import Any

import httpx
import pytest

from tests.services.hub import USER_PASSWORD, wait_until
from visahub.model.instance import Phase, Want, new_instance_id

from .conftest import OTHERS, OWN, Asking, choices

NOT_YOURS = "You are not in the team"
UNDER_EMBARGO = "is under embargo until 1 Jan 2030"


def by_json(asking: Asking, server: str, options: dict[str, Any]) -> tuple[int, str]:
    response = asking.start(server, options)
    return response.status_code, response.json()["message"]


def by_form(asking: Asking, server: str, options: dict[str, Any]) -> tuple[int, str]:
    with closing(asking.hub.login("alice")) as session:
        page = session.get(f"/hub/spawn/alice/{server}")
        assert page.status_code == 200
        response = session.post(f"/hub/spawn/alice/{server}", params={"_xsrf": session.cookies["_xsrf"]}, data=options)
    return response.status_code, unescape(response.text)


def by_patch(asking: Asking, server: str, options: dict[str, Any]) -> tuple[int, str]:
    asking.ask("PUT", server, {"display_name": server, "user_options": choices()})
    response = asking.ask("PATCH", server, {"user_options": options})
    asking.ask("DELETE", server, {"remove": True})
    return response.status_code, response.json()["message"]


@pytest.mark.parametrize("door", [by_json, by_form, by_patch])
@pytest.mark.parametrize(
    ("options", "status", "sentence"),
    [
        (choices(experiments=["others"]), 403, UNDER_EMBARGO),
        (choices(experiments=["nowhere"]), 422, "There is no experiment 'nowhere' here"),
        (choices(experiments=[]), 422, "An instance needs at least one experiment"),
        (choices(hardware="large"), 403, "Only for staff. Ask your local contact."),
        (choices(environment="secret"), 422, "There is no environment 'secret' here"),
        (choices(cmd="id"), 422, "There is no choice named 'cmd'"),
        (choices(name="a" * 101), 422, "at most 100 fit"),
    ],
)
def test_every_door_says_the_same(
    asking: Asking, door: Callable[..., tuple[int, str]], options: dict[str, Any], status: int, sentence: str
) -> None:
    server = new_instance_id()
    got, told = door(asking, server, options)
    assert got == status, told
    assert sentence in told
    assert "SpawnException" not in told
    assert asking.row(server) is None
    assert asking.hub.instance_pids() == []


def test_a_restart_is_judged_by_the_rules_of_today(asking: Asking, catalogue: Callable[..., None]) -> None:
    server = asking.started()
    assert asking.ask("DELETE", server).status_code in {202, 204}
    wait_until(lambda: asking.row(server).phase is Phase.STOPPED, "it has stopped")
    catalogue(replace(OWN, team=(), public_at=None), OTHERS)
    response = asking.ask("POST", server)
    assert response.status_code == 403
    assert NOT_YOURS in response.json()["message"]
    assert asking.row(server).phase is Phase.STOPPED


HOSTILE = [
    {"experiments": ["x"] * 10_000},
    {"experiments": "own"},
    {"experiments": [["own"]]},
    {"experiments": ["own\n#SBATCH --uid=0"]},
    {"environment": "tiny\x00"},
    {"environment": "../../etc/passwd"},
    {"environment": ["tiny"]},
    {"hardware": {"$ne": 1}},
    {"hardware": "small; rm -rf /"},
    {"name": "a\x1b[31m"},
    {"name": "\u202egnp.exe"},
    {"name": 7},
    {"notes": "x" * 5_000_000},
    {"notes": "\x00"},
    {"keyboard": "us -layout $(id)"},
    {"resolution": "1x1"},
    {"__jupyterhub_bytes__": "AAAA"},
    {"prologue": "curl evil | sh"},
    {"<script>alert(1)</script>": "x"},
]


@pytest.mark.parametrize("bad", HOSTILE, ids=lambda bad: next(iter(bad)))
def test_hostile_options_leave_nothing_behind(asking: Asking, bad: dict[str, Any]) -> None:
    server = new_instance_id()
    response = asking.start(server, choices(**bad))
    assert 400 <= response.status_code < 500, response.text
    sentence = response.json()["message"]
    assert len(sentence) < 500
    assert sentence.isprintable()
    assert asking.row(server) is None
    assert asking.hub.instance_pids() == []
    assert asking.hub_query("select count(*) from spawners where name = ?", server) == [(0,)]


def test_text_of_users_is_inert_on_pages(asking: Asking) -> None:
    with closing(asking.hub.login("alice")) as session:
        address = '/hub/spawn/alice/i1?opt-name=<script>alert(1)</script>&opt-experiments="><img src=x>'
        page = session.get(address).text
        assert "<script>alert" not in page
        assert "<img" not in page
        response = session.post(
            "/hub/spawn/alice/i1",
            params={"_xsrf": session.cookies["_xsrf"]},
            data=choices(environment="<script>alert(2)</script>"),
        )
        assert response.status_code == 422
        assert "<script>alert" not in response.text


def test_the_body_must_be_a_mapping(asking: Asking) -> None:
    for body in ([1], "text", {"user_options": [1]}):
        assert 400 <= asking.ask("POST", new_instance_id(), body).status_code < 500


def test_the_default_server_is_refused(asking: Asking) -> None:
    response = asking.hub.api("POST", "/users/alice/server", token=asking.token("alice"), body=choices())
    assert response.status_code == 400
    assert response.json()["message"].startswith("Instances have names here.")
    assert asking.hub_query("select user_options from spawners where name = ''")[0][0] in {None, "null", "{}"}


@pytest.mark.parametrize(
    "path",
    [
        "/hub/spawn",
        "/hub/spawn/alice",
        "/hub/spawn/alice/{server}",
        "/hub/spawn/alice/{server}?opt-environment=tiny&opt-hardware=small&opt-experiments=own",
        "/hub/spawn/alice/{server}?environment=tiny&hardware=small&experiments=own",
        "/hub/spawn?opt-environment=tiny",
        "/hub/user/alice/{server}/lab",
        "/user/alice/{server}/lab",
        "/user/alice/lab",
        "/hub/spawn-pending/alice/{server}",
        "/hub/home",
        "/hub/user-redirect/lab",
    ],
)
def test_no_address_starts_anything(asking: Asking, path: str) -> None:
    server = new_instance_id()
    with closing(asking.hub.login("alice")) as session:
        address = path.format(server=server)
        for _ in range(6):
            response = session.get(address)
            if response.status_code not in {301, 302, 303}:
                break
            address = response.headers["location"]
            if address.startswith("/services/"):
                break
    assert response.status_code < 500
    assert asking.store.instances.live() == []
    assert asking.hub.instance_pids() == []
    # It is no error, so the log of the Hub has no traceback of it.
    assert "NothingStarted" not in asking.hub.log.read_text()


def test_an_address_leads_to_the_form_with_its_choices(asking: Asking) -> None:
    with closing(asking.hub.login("alice")) as session:
        page = session.get("/hub/spawn/alice/i2?opt-experiments=own&opt-experiments=a%26b&opt-hardware=small&opt-x=1")
    assert page.status_code == 200
    assert "Nothing was started" in page.text
    target = "/services/visahub/new?experiments=own&experiments=a%26b&hardware=small"
    assert f'href="{target}"' in unescape(page.text)


def test_the_form_door_starts(asking: Asking) -> None:
    server = new_instance_id()
    with closing(asking.hub.login("alice")) as session:
        session.get(f"/hub/spawn/alice/{server}")
        response = session.post(
            f"/hub/spawn/alice/{server}", params={"_xsrf": session.cookies["_xsrf"]}, data=choices(name="By form")
        )
    assert response.status_code == 302
    asking.hub.wait_ready("alice", server)
    assert asking.row(server).name == "By form"


def test_an_instance_gets_only_what_it_needs(asking: Asking) -> None:
    server = asking.started()
    environ = asking.visit(server)["environ"]
    assert environ["JUPYTERHUB_USER"] == "alice"
    assert environ["JUPYTERHUB_SERVICE_PREFIX"] == f"/user/alice/{server}/"
    foreign = {name for name in environ if not name.startswith(("JUPYTERHUB_", "VISAHUB_"))}
    assert foreign <= {
        "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_CTYPE", "XDG_RUNTIME_DIR", "TMPDIR", "TZ",
    }  # fmt: skip
    assert asking.hub.portal_token not in json.dumps(environ)
    token = environ["JUPYTERHUB_API_TOKEN"]
    scopes = asking.hub.api("GET", "/user", token=token).json()["scopes"]
    assert "start:servers!user=alice" not in scopes
    assert not any(scope.startswith(("servers", "admin", "tokens", "shares")) for scope in scopes)
    for pid in asking.hub.instance_pids():
        assert token not in _command_line(pid)


def _command_line(pid: int) -> str:
    with open(f"/proc/{pid}/cmdline") as file:
        return file.read()


def test_stop_keeps_the_record_and_start_goes_on_with_it(asking: Asking) -> None:
    server = asking.started(name="Keeps its name")
    first = asking.row(server)
    token = asking.visit(server)["environ"]["JUPYTERHUB_API_TOKEN"]
    assert asking.ask("DELETE", server).status_code in {202, 204}
    wait_until(lambda: asking.row(server).phase is Phase.STOPPED, "it has stopped")
    assert asking.hub.instance_pids() == []
    # The token dies with its attempt.
    assert asking.hub.api("GET", "/user", token=token).status_code == 403
    wait_until(lambda: asking.ask("POST", server).status_code in {201, 202}, "it starts again")
    asking.hub.wait_ready("alice", server)
    again = asking.row(server)
    assert (again.id, again.name) == (first.id, "Keeps its name")
    assert again.attempt != first.attempt


def test_delete_is_for_ever(asking: Asking) -> None:
    server = asking.started()
    row = asking.row(server)
    assert asking.ask("DELETE", server, {"remove": True}).status_code in {202, 204}
    wait_until(lambda: asking.store.instances.get(row.id).phase is Phase.GONE, "it is gone")
    wait_until(lambda: asking.hub.server("alice", server) is None, "the Hub has forgotten it")
    assert asking.hub.instance_pids() == []


def test_a_failed_start_is_cleaned_up_and_told(asking: Asking) -> None:
    (asking.home() / "fail").touch()
    server = new_instance_id()
    response = asking.start(server, choices())
    wait_until(lambda: asking.row(server).phase is Phase.ERROR, "the failure is known")
    row = asking.row(server)
    assert row.sentence.startswith("JupyterLab ended before it answered.")
    assert response.status_code in {202, 503}
    if response.status_code == 503:
        assert response.json()["message"] == row.sentence
    notes = [event.text for event in asking.store.instances.events(row.id) if event.kind == "note"]
    assert any("fails since it was told so" in note for note in notes)
    assert asking.hub.instance_pids() == []
    with closing(asking.hub.login("alice")) as session:
        page = session.get(f"/hub/spawn-pending/alice/{server}")
        assert row.sentence in unescape(page.text)
    (asking.home() / "fail").unlink()
    assert asking.ask("POST", server).status_code in {201, 202}
    asking.hub.wait_ready("alice", server)


def test_many_failed_starts_do_not_end_the_hub(asking: Asking) -> None:
    (asking.home() / "fail").touch()
    server = new_instance_id()
    for _ in range(6):
        wait_until(lambda: asking.start(server, choices()).status_code in {202, 503}, "it tries again")
        wait_until(lambda: asking.row(server).phase is Phase.ERROR, "it failed")
    assert asking.hub.is_up()


@pytest.mark.parametrize("remove", [False, True])
def test_a_start_under_way_can_be_stopped(asking: Asking, remove: bool) -> None:
    (asking.home() / "slow").touch()
    server = new_instance_id()
    assert asking.start(server, choices()).status_code == 202
    row = asking.row(server)
    wait_until(asking.hub.instance_pids, "its process runs")
    response = asking.ask("DELETE", server, {"remove": remove})
    assert response.status_code in {202, 204}, response.text
    wanted = Phase.GONE if remove else Phase.STOPPED
    wait_until(lambda: asking.store.instances.get(row.id).phase is wanted, "it is over")
    wait_until(lambda: not asking.hub.instance_pids(), "its process has ended")
    assert asking.hub.is_up()


def test_a_wish_ends_a_start_under_way(asking: Asking) -> None:
    (asking.home() / "slow").touch()
    server = new_instance_id()
    assert asking.start(server, choices()).status_code == 202
    row = asking.row(server)
    asking.store.instances.wish(row.id, Want.OFF, row.changed)
    wait_until(lambda: asking.row(server).phase is Phase.STOPPED, "it has stopped")
    wait_until(lambda: not (asking.hub.server("alice", server) or {}).get("pending"), "the Hub knows")
    (asking.home() / "slow").unlink()
    assert asking.ask("POST", server).status_code in {201, 202}


def test_progress_tells_the_steps(asking: Asking) -> None:
    (asking.home() / "slow").touch()
    server = new_instance_id()
    assert asking.start(server, choices()).status_code == 202
    headers = {"Authorization": f"token {asking.token('alice')}"}
    address = f"{asking.hub.api_url}/users/alice/servers/{server}/progress"
    told = []
    with httpx.stream("GET", address, headers=headers, timeout=30) as stream:
        for line in stream.iter_lines():
            if line.startswith("data:"):
                event = json.loads(line.removeprefix("data:"))
                told.append(event["message"])
                if event["message"].startswith("Starting JupyterLab"):
                    (asking.home() / "slow").unlink(missing_ok=True)
                if event.get("ready"):
                    break
    assert told[:2] == ["Server requested", "Preparing your account"]
    assert told[-1].startswith("Server ready")


def test_nobody_starts_for_somebody_else(asking: Asking) -> None:
    body = {"display_name": "x", "user_options": choices(experiments=["others"])}
    response = asking.hub.api("POST", "/users/bob/servers/i5", token=asking.token("alice"), body=body)
    assert response.status_code in {403, 404}
    asking.token("bob")
    assert asking.row("i5", "bob") is None


def test_jupyterlab_itself_answers(asking: Asking) -> None:
    server = asking.started(environment="lab")
    response = httpx.get(
        f"{asking.hub.url}/user/alice/{server}/api/contents",
        headers={"Authorization": f"token {asking.token('alice')}"},
        timeout=30,
    )
    assert response.status_code == 200, response.text
    page = httpx.get(f"{asking.hub.url}/user/alice/{server}/lab", timeout=30)
    assert page.status_code == 302


def test_many_starts_at_once_keep_the_quota(asking: Asking) -> None:
    asking.token("alice")
    with ThreadPoolExecutor(12) as pool:
        jobs = [pool.submit(asking.start, new_instance_id(), choices()) for _ in range(12)]
    # 202: the Hub answers after a second, whether the start is admitted by then or not.
    assert {job.result().status_code for job in jobs} <= {201, 202, 409}
    wait_until(lambda: all(row.phase is Phase.READY for row in asking.store.instances.live()), "all are ready")
    assert len(asking.store.instances.live()) == 5
    assert len({asking.store.instances.get(row.id).attempt for row in asking.store.instances.live()}) == 5


def test_the_same_start_pressed_many_times_is_one(asking: Asking) -> None:
    asking.token("alice")
    (asking.home() / "slow").touch()
    server = new_instance_id()
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(asking.start, server, choices()) for _ in range(8)]
    assert all(job.result().status_code in {201, 202, 400, 409, 500} for job in jobs)
    (asking.home() / "slow").unlink()
    asking.hub.wait_ready("alice", server)
    assert len(asking.store.instances.live()) == 1
    assert asking.visit(server)["path"] == f"/user/alice/{server}/api"


def test_a_server_keeps_its_address(asking: Asking) -> None:
    server = asking.started()
    asking.ask("DELETE", server)
    wait_until(lambda: asking.row(server).phase is Phase.STOPPED, "it has stopped")
    response = asking.ask("PATCH", server, {"name": "other"})
    assert response.status_code == 409
    assert "does not change" in response.json()["message"]


def test_options_that_another_way_brought_into_the_hub_do_not_stay(asking: Asking) -> None:
    """The Hub refuses them at each of its doors; an older visahub did not, nor does a database that was edited."""
    server = asking.started()
    asking.ask("DELETE", server)
    wait_until(lambda: asking.row(server).phase is Phase.STOPPED, "it has stopped")
    asking.hub.stop()
    with closing(sqlite3.connect(asking.hub.state / "jupyterhub.sqlite", timeout=10)) as database, database:
        wrong = json.dumps({"prologue": "x" * 100_000})
        database.execute("update spawners set user_options = ? where name = ?", (wrong, server))
    asking.hub.start()
    asking.hub.round()
    (stored,) = asking.hub_query("select user_options from spawners where name = ?", server)
    assert json.loads(stored[0]) == asking.row(server).request.as_options()


def test_no_secret_is_logged(asking: Asking) -> None:
    server = asking.started()
    token = asking.visit(server)["environ"]["JUPYTERHUB_API_TOKEN"]
    log = asking.hub.log.read_text()
    for secret in (token, asking.token("alice"), asking.hub.portal_token, asking.hub.admin_token, USER_PASSWORD):
        assert secret not in log
    assert (asking.hub.state / "jupyterhub.sqlite").stat().st_mode & 0o077 == 0
