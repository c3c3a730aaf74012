"""Attacks that pass through several doors of a real Hub with its portal (X5, X6, X7, X10), named by their ids."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from html import unescape
from typing import Any

import httpx
import pytest

from tests.services.hub import RunningHub, running, wait_until
from visahub.model.experiment import Member
from visahub.model.instance import Phase, new_instance_id

from .conftest import OTHERS, OWN, Asking, choices

pytestmark = [pytest.mark.services, pytest.mark.slow]

PORTAL = "/services/visahub/"
# One text with everything that some reader of it might obey.
EVIL = "<script>alert(1)</script>{{7*7}}$(id)`id`=cmd()'\";#SBATCH"
_MORE = f"""
import json
people = json.loads(Path(c.SampleAuthenticator.accounts_file).read_text())
people[0]["display_name"] = {EVIL!r}
c.SampleAuthenticator.accounts_file = str(state / "accounts.json")
Path(c.SampleAuthenticator.accounts_file).write_text(json.dumps(people))
c.Visahub.environments.append({{
    "id": "evil", "name": {EVIL!r}, "description": {EVIL!r}, "has_desktop": False, "images": {{"local": "tiny"}},
}})
c.Visahub.hardware.append({{
    "id": "evil", "name": {EVIL!r}, "place": {EVIL!r}, "backend": "local", "cores": 1, "memory_mb": 512,
}})
c.Visahub.hardware.append({{
    "id": "closed", "name": "Closed", "place": "Here", "backend": "local", "cores": 1, "memory_mb": 512,
    "restriction": {{"roles": ["staff"], "sentence": {EVIL!r}}},
}})
"""
EVIL_EXPERIMENT = replace(OWN, id="evil", proposal="p3", title=EVIL, team=(Member("alice"), Member("x", EVIL)))


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asking]:
    with running(tmp_path_factory.mktemp("doors"), more=_MORE, with_portal=True) as hub:
        made = Asking(hub)
        made.experiments(OWN, OTHERS, EVIL_EXPERIMENT)
        wait_until(hub.has_portal, "the portal answers")
        yield made
        made.store.close()


@pytest.fixture
def whole_catalogue(asking: Asking) -> Iterator[None]:
    yield
    asking.experiments(OWN, OTHERS, EVIL_EXPERIMENT)


def enter(hub: RunningHub, username: str = "alice") -> httpx.Client:
    """Logs in and goes on to the portal."""
    session = hub.login(username)
    session.follow_redirects = True
    assert session.get(PORTAL).status_code == 200
    session.follow_redirects = False
    return session


def xsrf(session: httpx.Client, path: str) -> str:
    return next(cookie.value or "" for cookie in session.cookies.jar if cookie.name == "_xsrf" and cookie.path == path)


# The doors: each tries a new server with options and gives the status and what is said.


def by_hubs_json(asking: Asking, server: str, options: Any) -> tuple[int, str]:
    response = asking.start(server, options)
    return response.status_code, said(response)


def by_hubs_form(asking: Asking, server: str, options: Any) -> tuple[int, str]:
    with closing(asking.hub.login("alice")) as session:
        page = session.get(f"/hub/spawn/alice/{server}")
        assert page.status_code == 200
        token = {"_xsrf": session.cookies["_xsrf"]}
        response = session.post(f"/hub/spawn/alice/{server}", params=token, data=options)
    return response.status_code, unescape(response.text)


def by_put(asking: Asking, server: str, options: Any) -> tuple[int, str]:
    response = asking.ask("PUT", server, {"display_name": server, "user_options": options})
    return response.status_code, said(response)


def by_portals_json(asking: Asking, server: str, options: Any) -> tuple[int, str]:
    headers = {"Authorization": f"token {asking.token('alice')}"}
    address = f"{asking.hub.url}{PORTAL}api/instances"
    response = httpx.post(address, headers=headers, json=options, timeout=60)
    return response.status_code, said(response)


def by_portals_form(asking: Asking, server: str, options: Any) -> tuple[int, str]:
    with closing(enter(asking.hub)) as session:
        data = options | {"experiment": options.get("experiments", []), "server_name": server}
        data.pop("experiments", None)
        response = session.post(f"{PORTAL}instances", data=data | {"_xsrf": xsrf(session, PORTAL)})
    return response.status_code, unescape(response.text)


def said(response: httpx.Response) -> str:
    return str(response.json().get("message", "")) if response.content else ""


DOORS = [by_hubs_json, by_hubs_form, by_put, by_portals_json, by_portals_form]
Door = Callable[[Asking, str, Any], tuple[int, str]]
WRONG = [
    (choices(experiments=["others"]), 403, "is under embargo until 1 Jan 2030"),
    (choices(experiments=["nowhere"]), 422, "There is no experiment 'nowhere' here"),
    (choices(hardware="large"), 403, "Only for staff. Ask your local contact."),
    (choices(environment="secret"), 422, "There is no environment 'secret' here"),
    (choices(name="a" * 101), 422, "at most 100 fit"),
]


def nothing_is_kept(asking: Asking, server: str) -> None:
    assert asking.row(server) is None
    assert asking.hub_query("SELECT name, user_options FROM spawners WHERE name = ?", server) == []
    # Also not under another name, as the portal's API gives it.
    assert asking.store.instances.live() == []
    assert asking.hub_query("SELECT name FROM spawners WHERE name NOT IN ('', ?)", server) == []


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(("options", "status", "sentence"), WRONG, ids=lambda value: str(value)[:30])
def test_x5_one_wrong_choice_is_refused_alike_at_every_door(
    asking: Asking, door: Door, options: Any, status: int, sentence: str
) -> None:
    server = new_instance_id()
    got, told = door(asking, server, options)
    assert (got, sentence in told) == (status, True), told[-2000:]
    nothing_is_kept(asking, server)


@pytest.mark.parametrize(("options", "status", "sentence"), WRONG, ids=lambda value: str(value)[:30])
def test_x5_patch_and_restart_are_doors_too(asking: Asking, options: Any, status: int, sentence: str) -> None:
    server = new_instance_id()
    assert asking.ask("PUT", server, {"display_name": server, "user_options": choices()}).status_code == 201
    changed = asking.ask("PATCH", server, {"user_options": options})
    assert changed.status_code == status
    assert sentence in said(changed)
    [(stored,)] = asking.hub_query("SELECT user_options FROM spawners WHERE name = ?", server)
    assert json.loads(stored) == choices()
    asking.ask("DELETE", server, {"remove": True})


def test_x5_a_restart_is_judged_by_the_rules_of_today(asking: Asking, whole_catalogue: None) -> None:
    server = asking.started()
    assert asking.ask("DELETE", server).status_code in {202, 204}
    wait_until(lambda: asking.row(server).phase is Phase.STOPPED, "it has stopped")
    asking.experiments(replace(OWN, team=(), public_at=None))
    with closing(enter(asking.hub)) as session:
        form = {"_xsrf": xsrf(session, PORTAL)}
        again = [
            asking.ask("POST", server),
            asking.ask("PATCH", server, {"user_options": choices()}),
            session.post(f"{PORTAL}instances/{server}/start", data=form),
            session.post(f"{PORTAL}api/instances/{server}/start", headers={"X-XSRFToken": form["_xsrf"]}),
        ]
    for response in again:
        assert response.status_code == 403, response.text
        assert "You are not in the team" in unescape(response.text)
    assert asking.row(server).phase is Phase.STOPPED


@pytest.mark.parametrize("address", ["/hub/spawn/alice/{}", f"{PORTAL}new?server_name={{}}&x=1", "/user/alice/{}/lab"])
def test_x5_opening_an_address_makes_nothing_at_all(asking: Asking, address: str) -> None:
    server = new_instance_id()
    query = "opt-experiments=own&opt-environment=tiny&opt-hardware=small&experiment=own&environment=tiny&hardware=small"
    path = address.format(server)
    with closing(enter(asking.hub)) as session:
        session.follow_redirects = True
        assert session.get(f"{path}{'&' if '?' in path else '?'}{query}").status_code in {200, 424}
    nothing_is_kept(asking, server)


HOSTILE: list[dict[str, Any]] = [
    {"cmd": "id"},
    {"__jupyterhub_bytes__": True, "data": "AAAA"},
    {"__jupyterhub_bytes__": "AAAA"},
    {"__class__": {"__init__": 1}},
    {"experiments": ["x"] * 10_000},
    {"experiments": [["own"]]},
    {"environment": ["tiny"]},
    {"hardware": {"$ne": 1}},
    {"hardware": "small\x00"},
    {"name": "\u202egnp.exe"},
    {"name": "a\nb"},
    {"notes": "x" * 5_000_000},
    {"notes": "\x00"},
    {"notes": "\u200f"},
    {"x" * 1_000_000: 1},
]


@pytest.mark.parametrize("bad", HOSTILE, ids=lambda bad: next(iter(bad))[:20] + repr(next(iter(bad.values())))[:12])
def test_x6_hostile_options_are_refused_and_not_stored(asking: Asking, bad: dict[str, Any]) -> None:
    for door in (by_hubs_json, by_put):
        server = new_instance_id()
        status, sentence = door(asking, server, choices(**bad))
        assert 400 <= status < 500, sentence
        assert 0 < len(sentence) < 500
        assert sentence.isprintable()
        nothing_is_kept(asking, server)
    server = new_instance_id()
    assert asking.ask("PUT", server, {"display_name": server, "user_options": choices()}).status_code == 201
    assert 400 <= asking.ask("PATCH", server, {"user_options": choices(**bad)}).status_code < 500
    [(stored,)] = asking.hub_query("SELECT user_options FROM spawners WHERE name = ?", server)
    assert json.loads(stored) == choices()
    asking.ask("DELETE", server, {"remove": True})


@pytest.mark.parametrize(
    "name", ["x" * 900_000, "a\x00b", "\u202egnp", "a\nb", EVIL * 10], ids=lambda name: ascii(name[:8])
)
def test_x6_display_names_of_the_hub_are_no_way_around(asking: Asking, name: str) -> None:
    server = asking.started()
    asking.ask("DELETE", server)
    wait_until(lambda: asking.row(server).phase is Phase.STOPPED, "it has stopped")
    for method in ("PATCH", "POST"):
        response = asking.ask(method, server, {"display_name": name, "user_options": choices()})
        assert response.status_code == 422
        assert "Shorten it" in said(response)
    assert asking.ask("PUT", new_instance_id(), {"display_name": name}).status_code == 422
    [(shown,)] = asking.hub_query("SELECT display_name FROM spawners WHERE name = ?", server)
    assert shown == server


def test_x7_hostile_text_is_inert_wherever_it_is_shown(asking: Asking) -> None:
    """In every page, event, JSON and log line that shows a text of users, of the catalogue or of the configuration."""
    options = choices(name=EVIL, notes=f"{EVIL}\n#SBATCH --uid=0", environment="evil", hardware="evil")
    options["experiments"] = ["evil"]
    server = new_instance_id()
    assert asking.start(server, options).status_code in {201, 202}
    asking.hub.wait_ready("alice", server)
    pages = ["", "new?experiment=evil", f"new?instance={server}", "experiments?text=p3", "experiments/evil"]
    pages += [
        f"instances/{server}",
        f"instances/{server}/progress",
        f"instances/{server}/delete",
        "experiments?text=" + EVIL,
    ]
    with closing(enter(asking.hub)) as session:
        for path in pages:
            html = session.get(PORTAL + path).text
            inert(html)
            assert "&lt;script&gt;alert(1)" in html, path
        stream = ""
        token = xsrf(session, PORTAL)
        with session.stream("GET", f"{PORTAL}instances/{server}/events", params={"_xsrf": token}) as events:
            for text in events.iter_text():
                stream += text
        inert(
            "\n".join(json.loads(line[6:]).get("html", "") for line in stream.splitlines() if line.startswith("data: "))
        )
        refused = session.post(
            f"{PORTAL}instances",
            data={"_xsrf": token, "server_name": new_instance_id(), "experiment": "own"}
            | {"environment": "tiny", "hardware": "closed", "name": EVIL},
        )
        assert refused.status_code == 403
        inert(refused.text)
        home = session.get("/hub/home").text
        inert(home)
        assert home.count("&lt;script&gt;alert(1)") >= 1, "the name of the account"
        for path in ("api/instances", f"api/instances/{server}", "api/experiments?text=p3", "api/offers"):
            answer = session.get(PORTAL + path, headers={"X-XSRFToken": token})
            assert answer.headers["content-type"] == "application/json"
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert EVIL in json.dumps(answer.json(), ensure_ascii=False).replace('\\"', '"'), path
    # The text is a value of the instance's environment, not a part of a command.
    environ = asking.visit(server)["environ"]
    assert environ["VISAHUB_NAME"] == EVIL
    log = asking.hub.log.read_text()
    assert not re.search(r"^#SBATCH|uid=0", log, re.MULTILINE)


def inert(html: str) -> None:
    """Fails when a text became markup, or when somebody calculated it."""
    assert "<script>alert" not in html
    assert "49$(id)" not in html
    assert not re.search(r"=[\"'][^\"']*[\"']\s*;#SBATCH", html)


def test_x7_no_line_of_a_log_is_forged(asking: Asking) -> None:
    forged = "INFO 2026-01-01 forged by a visitor"
    with closing(asking.hub.login("alice")) as session:
        for path in (
            f"/hub/x%0a{forged}",
            f"{PORTAL}x%0d%0a{forged}",
            f"/hub/login?next=%0a{forged}",
            f"/user/alice/%0a{forged}",
        ):
            session.get(path)
        session.get("/hub/home", headers={"User-Agent": f"x {forged}", "Referer": f"http://x/ {forged}"})
        login = {"username": f"x\n{forged}", "password": "p"}
        session.post("/hub/login", params={"_xsrf": session.cookies["_xsrf"]}, data=login)
    asking.start(new_instance_id(), choices(environment=f"x\n{forged}"))
    log = asking.hub.log.read_text() + (asking.hub.state / "proxy.log").read_text()
    assert [line for line in log.splitlines() if line.lstrip().startswith("INFO 2026-01-01")] == []


@pytest.mark.parametrize("environment", [EVIL, "{{7*7}}", "%s%s", "<img src=x onerror=alert(1)>"])
def test_x10_a_refusal_is_a_clean_sentence(asking: Asking, environment: str) -> None:
    for door in (by_hubs_json, by_hubs_form, by_portals_json, by_portals_form):
        server = new_instance_id()
        status, told = door(asking, server, choices(environment=environment))
        assert status == 422
        assert "is not an environment. Choose one of the cards." in told
        assert "SpawnException" not in told
        assert "Error: 422" not in told
        nothing_is_kept(asking, server)
    with closing(asking.hub.login("alice")) as session:
        session.get("/hub/spawn/alice/x10")
        token = {"_xsrf": session.cookies["_xsrf"]}
        page = session.post("/hub/spawn/alice/x10", params=token, data=choices(environment=environment))
    inert(page.text)
    assert "<img src=x" not in page.text
