"""The Hub's pages with the portal beside them, in a real browser: plain words, no serious finding of axe."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from playwright.async_api import Browser, Page, async_playwright, expect

from tests.services.hub import ROOT, USER_PASSWORD, running, wait_until
from visahub import build
from visahub.model.instance import Phase, new_instance_id

from .conftest import OTHERS, OWN, Asking, choices

CHROMIUM = "/usr/bin/chromium"
AXE = build.share("node_modules", "axe-core", "axe.min.js")
PICTURES = ROOT / "build" / "screenshots"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not os.path.exists(CHROMIUM), reason="Debian's chromium is not installed"),
    pytest.mark.skipif(not AXE.exists(), reason="axe-core is not installed: npm ci in share/"),
]


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asking]:
    with running(tmp_path_factory.mktemp("hub"), with_portal=True) as hub:
        made = Asking(hub)
        made.experiments(OWN, OTHERS)
        wait_until(hub.has_portal, "the portal answers")
        yield made
        made.store.close()


@pytest.fixture(scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        made = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
        )
        yield made
        await made.close()


@pytest.fixture(params=["light", "dark"])
async def page(request: pytest.FixtureRequest, browser: Browser, asking: Asking) -> AsyncIterator[Page]:
    context = await browser.new_context(base_url=asking.hub.url, color_scheme=request.param)
    made = await context.new_page()
    made.set_default_timeout(30_000)
    complaints: list[str] = []
    made.on("pageerror", lambda error: complaints.append(str(error)))
    yield made
    await context.close()
    assert complaints == []


async def sign_in(page: Page, username: str = "alice") -> None:
    await page.goto("/hub/login")
    await page.get_by_label("User name").fill(username)
    await page.get_by_label("Password", exact=True).fill(USER_PASSWORD)
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("heading", name="My instances", level=1)).to_be_visible()


async def check(page: Page, name: str) -> None:
    """Keeps a picture, and lets axe look at the page."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    theme = await page.evaluate("document.documentElement.dataset.bsTheme")
    await page.screenshot(path=PICTURES / f"hub-{name}-{theme}.png", full_page=True)
    await page.evaluate(AXE.read_text())
    found: dict[str, Any] = await page.evaluate("axe.run()")
    bad = [
        (finding["id"], [node["html"] for node in finding["nodes"]])
        for finding in found["violations"]
        if finding["impact"] in {"serious", "critical"}
    ]
    assert bad == []


async def test_login(page: Page) -> None:
    await page.goto("/hub/login")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Photon Science Data Analysis")
    await check(page, "login")
    await page.get_by_label("User name").fill("alice")
    await page.get_by_label("Password", exact=True).fill("wrong")
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("alert")).to_contain_text("Invalid username or password")
    await check(page, "login-refused")


async def test_home_and_the_way_out(page: Page) -> None:
    await sign_in(page)
    await page.goto("/hub/home")
    await expect(page.get_by_role("link", name="My instances").first).to_be_visible()
    await check(page, "home")
    await page.get_by_text("Alice Example").click()
    await page.get_by_role("link", name="Log out").click()
    await expect(page.get_by_role("button", name="Sign in")).to_be_visible()
    await page.goto("/services/visahub/")
    await expect(page.get_by_role("button", name="Sign in")).to_be_visible()


async def test_an_address_with_choices_ends_on_the_form(page: Page) -> None:
    await sign_in(page)
    await page.goto(f"/hub/spawn/alice/{new_instance_id()}?opt-experiments=own")
    await page.wait_for_url("**/services/visahub/new?experiments=own")


async def test_errors_are_plain_words(page: Page) -> None:
    await sign_in(page)
    await page.goto("/hub/nowhere")
    await expect(page.get_by_role("heading", level=1)).to_have_text("There is nothing here")
    await check(page, "nothing-here")
    await page.goto("/hub/admin")
    await expect(page.get_by_role("heading", level=1)).to_have_text("You may not open this")
    await page.goto("/hub/token")
    await expect(page.locator("nav")).to_contain_text("My instances")


async def test_a_start_is_shown_and_leads_into_the_instance(page: Page, asking: Asking) -> None:
    await sign_in(page)
    server = new_instance_id()
    (asking.home() / "slow").touch()
    assert asking.start(server, choices(name="quiet-beamline")).status_code == 202
    await page.goto(f"/hub/spawn-pending/alice/{server}")
    await expect(page.locator("#progress-log")).to_contain_text("Preparing your account")
    await check(page, "spawn-pending")
    (asking.home() / "slow").unlink()
    await page.wait_for_url(f"**/user/alice/{server}/**")


async def test_a_start_can_be_cancelled(page: Page, asking: Asking) -> None:
    await sign_in(page)
    server = new_instance_id()
    (asking.home() / "slow").touch()
    assert asking.start(server, choices()).status_code == 202
    await page.goto(f"/hub/spawn-pending/alice/{server}")
    await page.get_by_role("button", name="Cancel").click()
    await expect(page.get_by_role("heading", name="My instances", level=1)).to_be_visible()
    wait_until(lambda: asking.row(server).phase is Phase.STOPPED, "it has stopped")


async def test_a_failed_start_says_why(page: Page, asking: Asking) -> None:
    await sign_in(page)
    server = new_instance_id()
    (asking.home() / "fail").touch()
    asking.start(server, choices())
    wait_until(lambda: asking.row(server).phase is Phase.ERROR, "it failed")
    await page.goto(f"/hub/spawn-pending/alice/{server}")
    await expect(page.get_by_role("alert")).to_contain_text("JupyterLab ended before it answered")
    await check(page, "failed")
    (asking.home() / "fail").unlink()
    await page.goto(f"/user/alice/{server}/lab")
    await expect(page.get_by_role("heading", level=1)).to_be_visible()
    await check(page, "not-running")


async def test_the_portal_comes_back_by_itself(page: Page, asking: Asking) -> None:
    await sign_in(page)
    await page.goto("/hub/services/visahub/experiments")
    await expect(page.get_by_role("heading", level=1)).to_have_text("One moment")
    await check(page, "away")
    await page.wait_for_url("**/services/visahub/experiments")
