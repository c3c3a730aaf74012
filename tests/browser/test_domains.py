"""A domain for each user: the main job works there, and a page of one domain reaches nothing of another (X19)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.browser.conftest import picture
from tests.services.hub import USER_PASSWORD, RunningHub, running
from tests.services.portal import own_portal
from visahub.model.experiment import Experiment
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
    made = browser.new_context(base_url=hub.domains, viewport={"width": 1280, "height": 860})
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
    page.goto(f"{domain(hub, 'visahub--service')}{PORTAL}new?experiment=xfel/1&environment={environment}&hardware=small")
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
    page.get_by_role("link", name="Choose and start").click()
    expect(page.get_by_role("heading", name="New instance")).to_be_visible()
    page.get_by_text("Menu of").locator("..").click()
    page.get_by_role("link", name="Log out").click()
    assert urlsplit(page.url).netloc == urlsplit(hub.domains).netloc
    page.goto(domain(hub, "visahub--service") + PORTAL)
    expect(page.get_by_label("User name")).to_be_visible()
    assert refused == []
