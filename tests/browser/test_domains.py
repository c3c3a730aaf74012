"""A domain for each user: the main job works there, and a page of one domain reaches nothing of another (X19)."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.browser.conftest import picture
from tests.services.hub import USER_PASSWORD, RunningHub, running
from tests.services.portal import own_portal
from visahub.model.experiment import Experiment
from visahub.model.instance import new_instance_id
from visahub.store.database import Store

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

PORTAL = "/services/visahub/"
OPEN = Experiment(
    id="xfel/1",
    proposal="p1",
    title="Open data of a test",
    instrument="P03",
    start=date(2020, 1, 1),
    end=date(2020, 1, 3),
    public_at=date(2021, 1, 1),
)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    """A Hub with per-user domains, and the portal as a unit of its own."""
    with running(tmp_path_factory.mktemp("domains"), has_domains=True) as one:
        store = Store(f"sqlite:///{one.state / 'visahub.sqlite'}")
        store.experiments.replace_source("tests", [OPEN], datetime.now(UTC))
        store.close()
        with own_portal(one):
            yield one


@pytest.fixture
def context(browser: Browser, hub: RunningHub) -> Iterator[BrowserContext]:
    made = browser.new_context(base_url=hub.domains, viewport={"width": 1280, "height": 860}, ignore_https_errors=True)
    yield made
    made.close()


def domain(hub: RunningHub, name: str) -> str:
    """Gives the address of a user's domain, or of the portal's (`visahub--service`)."""
    return hub.domains.replace("hub.localhost", f"{name}.hub.localhost")


def sign_in(page: Page, hub: RunningHub, name: str) -> None:
    page.goto("/")
    page.get_by_label("User name").fill(name)
    page.get_by_label("Password", exact=True).fill(USER_PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="My instances", level=1)).to_be_visible()
    assert page.url == domain(hub, "visahub--service") + PORTAL


def start(page: Page, hub: RunningHub, environment: str, name: str) -> None:
    page.goto(
        f"{domain(hub, 'visahub--service')}{PORTAL}new?experiment=xfel/1&environment={environment}&hardware=small"
    )
    page.get_by_text("Name, screen, keyboard, notes").click()
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_role("button", name="Start", exact=True).click()


def test_main_job_on_domains(context: BrowserContext, hub: RunningHub) -> None:
    page = context.new_page()
    refused: list[str] = []
    page.on("console", lambda message: refused.append(message.text) if "ERR_BLOCKED" in message.text else None)
    page.goto("/")
    # The Hub's pages take the portal's style from its domain.
    assert page.evaluate("[...document.styleSheets].some((sheet) => sheet.href.includes('visahub--service'))")
    sign_in(page, hub, "alice")
    start(page, hub, "lab", "on-a-domain")
    page.wait_for_url(re.compile(rf"^{domain(hub, 'alice')}/user/alice/i[a-z0-9]+/lab"), timeout=90_000)
    expect(page.locator(".jp-FileBrowser .jp-DirListing")).to_be_visible(timeout=60_000)
    picture(page, "domains-lab", full=False)
    lab = page.url.partition("/lab")[0]

    page.goto(f"{lab}/desktop/")
    expect(page.locator("canvas")).to_be_visible(timeout=60_000)
    expect(page.get_by_text("Connected")).to_be_visible()
    assert page.locator("#notice-home").get_attribute("href") == f"{hub.domains}/hub/"

    page.goto(domain(hub, "visahub--service") + PORTAL)
    here = page.locator("article.vh-instance", has_text="on-a-domain")
    assert here.get_by_role("link", name="JupyterLab").get_attribute("href") == f"{lab}/"
    assert here.get_by_role("link", name="Desktop").get_attribute("href") == f"{lab}/desktop/"
    here.get_by_label("More for on-a-domain").click()
    here.get_by_role("button", name="Stop").click()
    expect(here.get_by_role("button", name="Start")).to_be_visible(timeout=60_000)
    # The Hub's page for a stopped instance, and its way back.
    page.goto(f"{lab}/lab")
    assert urlsplit(page.url).netloc == urlsplit(hub.domains).netloc
    page.get_by_role("link", name="My instances").last.click()
    expect(page.get_by_role("heading", name="My instances", level=1)).to_be_visible()
    page.goto(f"{hub.domains}/hub/spawn/alice/other?opt-experiments=xfel/1&opt-environment=tiny&opt-hardware=small")
    page.wait_for_url(re.compile(rf"^{domain(hub, 'visahub--service')}{PORTAL}new"))
    expect(page.get_by_role("heading", name="New instance")).to_be_visible()
    page.get_by_text("Menu of").locator("..").click()
    page.get_by_role("link", name="Log out").click()
    assert urlsplit(page.url).netloc == urlsplit(hub.domains).netloc
    page.goto(domain(hub, "visahub--service") + PORTAL)
    expect(page.get_by_label("User name")).to_be_visible()
    assert refused == []


# What a page of one domain tries with the visitor's cookies. A request that cannot be read counts as refused.
_TRY = """async ([addresses, posts]) => {
  const got = [];
  for (const address of addresses) {
    for (const [mode, method] of [["cors", "GET"], ["no-cors", "GET"], ["cors", "POST"], ["no-cors", "POST"]]) {
      if (method === "POST" && !posts.includes(address)) continue;
      try {
        const body = method === "POST" ? "{}" : undefined;
        const answer = await fetch(address, { mode, method, body, credentials: "include" });
        got.push([address, mode, method, answer.type, (await answer.text()).length]);
      } catch { got.push([address, mode, method, "refused", 0]); }
    }
  }
  return got;
}"""
_SOCKET = """(address) => new Promise((done) => {
  const socket = new WebSocket(address);
  socket.onopen = () => done("open");
  socket.onclose = () => done("closed");
})"""
_WINDOW = """(address) => new Promise((done) => {
  const opened = window.open(address);
  setTimeout(() => { try { done(opened.document.title); } catch { done("refused"); } }, 1500);
})"""
_FRAME = """(address) => new Promise((done) => {
  const frame = document.createElement("iframe");
  frame.src = address;
  frame.onload = () => { try { done(frame.contentDocument.body.innerText); } catch { done("refused"); } };
  document.body.append(frame);
})"""


def start_by_token(hub: RunningHub, username: str, environment: str) -> str:
    """Starts an instance without a browser; the account has logged in."""
    server = new_instance_id()
    options = {"experiments": ["xfel/1"], "environment": environment, "hardware": "small"}
    assert hub.start_server(username, server, options, token=hub.token(username)).status_code in {201, 202}
    hub.wait_ready(username, server)
    return server


def test_x19_page_of_a_user_reaches_nothing_of_another(
    context: BrowserContext, browser: Browser, hub: RunningHub
) -> None:
    other = browser.new_context(base_url=hub.domains, ignore_https_errors=True)
    sign_in(other.new_page(), hub, "bob")
    hostile = f"{domain(hub, 'bob')}/user/bob/{start_by_token(hub, 'bob', 'tiny')}/api"
    [theirs] = [cookie for cookie in other.cookies() if cookie["name"] == "__Host-jupyterhub-hub-login"]
    other.close()

    page = context.new_page()
    sign_in(page, hub, "alice")
    lab = f"{domain(hub, 'alice')}/user/alice/{start_by_token(hub, 'alice', 'lab')}"
    page.goto(f"{lab}/lab")
    expect(page.locator(".jp-FileBrowser .jp-DirListing")).to_be_visible(timeout=60_000)
    portal = domain(hub, "visahub--service") + PORTAL
    name = lab.rpartition("/")[2]
    posts = [f"{portal}instances/{name}/stop", f"{portal}api/instances/{name}/stop", f"{portal}api/instances"]
    posts += [f"{hub.domains}/hub/api/users/alice/tokens", f"{lab}/api/kernels", f"{lab}/desktop/start"]
    reads = [portal, f"{portal}api/offers", f"{portal}events", f"{hub.domains}/hub/home", f"{hub.domains}/hub/token"]
    reads += [f"{hub.domains}/hub/api/user", f"{hub.domains}/hub/api/users/alice", f"{lab}/api/contents", f"{lab}/lab"]

    page.goto(hostile)
    before = state(hub)
    got = page.evaluate(_TRY, [reads + posts, posts])
    assert len(got) == 2 * len(reads) + 4 * len(posts)
    assert {kind for _, _, _, kind, _ in got} <= {"refused", "opaque"}, got
    assert sum(length for *_, length in got) == 0
    socket = lab.replace("https:", "wss:")
    for address in (
        f"{socket}/visahub/desktop/socket",
        f"{socket}/api/events/subscribe",
        f"{socket}/terminals/websocket/1",
    ):
        assert page.evaluate(_SOCKET, address) == "closed"
    for address in (portal, f"{hub.domains}/hub/home", f"{lab}/lab"):
        assert page.evaluate(_FRAME, address) == "refused"
        assert page.evaluate(_WINDOW, address) == "refused"
    assert page.evaluate("document.cookie") == ""
    assert state(hub) == before

    # Cookies for all domains: a wrong token before the right one, and another login.
    page.evaluate(
        """([login, paths]) => {
          for (const path of paths) document.cookie = `_xsrf=2|tossed; domain=hub.localhost; path=${path}`;
          for (const name of ["jupyterhub-hub-login", "__Host-jupyterhub-hub-login"])
            document.cookie = `${name}=${login}; domain=hub.localhost; path=/hub/`;
        }""",
        [theirs.get("value"), [PORTAL, f"{PORTAL}instances", "/hub/", "/hub/home"]],
    )
    tossed = [cookie for cookie in context.cookies() if cookie.get("domain") == ".hub.localhost"]
    assert {cookie.get("name") for cookie in tossed} == {"_xsrf", "jupyterhub-hub-login", "jupyterhub-session-id"}
    page.goto(f"{hub.domains}/hub/home")
    expect(page.get_by_text("Alice Example").first).to_be_attached()
    page.goto(portal)
    here = page.locator("article.vh-instance", has=page.locator(f"#lab-{name}"))
    here.locator("details.vh-menu > summary").click()
    here.get_by_role("button", name="Stop").click()
    expect(page.locator(f"#start-{name}, #card-{name} button:has-text('Start')").first).to_be_visible(timeout=60_000)


def state(hub: RunningHub) -> list[object]:
    """Gives all that a forged request could change: instances, and the Hub's tokens and servers."""
    with closing(sqlite3.connect(hub.state / "visahub.sqlite")) as ours:
        rows = ours.execute("SELECT id, want, phase, attempt, request FROM instances ORDER BY id").fetchall()
    with closing(sqlite3.connect(hub.state / "jupyterhub.sqlite")) as theirs:
        rows += theirs.execute("SELECT name, user_options FROM spawners ORDER BY id").fetchall()
        rows += theirs.execute("SELECT note FROM api_tokens WHERE note != '' ORDER BY id").fetchall()
    return rows
