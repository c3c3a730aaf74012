"""A real browser against the demo as its user starts it: Hub, proxy, portal and local backend, nothing replaced."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.services.demo import Demo

PICTURES = Path(__file__).parents[2] / "build" / "screenshots"
CHROMIUM = "/usr/bin/chromium"

expect.set_options(timeout=30_000)


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    """The demo in a state folder of its own; the whole folder and all processes are gone afterwards."""
    # Not pytest's own folder: that one is closed to the sample accounts, which must reach their data.
    state = Path(tempfile.mkdtemp(prefix="visahub-", dir="/var/tmp"))
    state.chmod(0o755)
    with Demo(state) as running:
        yield running
    shutil.rmtree(state)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium for one module: its loop must be gone before asynchronous tests follow in the same process."""
    if not os.path.exists(CHROMIUM):
        pytest.skip("Debian's chromium is not installed: apt-get install chromium")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
            ],
        )
        yield running
        running.close()


@pytest.fixture
def context(browser: Browser, demo: Demo) -> Iterator[BrowserContext]:
    made = browser.new_context(
        base_url=demo.address, viewport={"width": 1280, "height": 860}, locale="de-DE", bypass_csp=True
    )
    made.grant_permissions(["clipboard-read", "clipboard-write"], origin=demo.address)
    yield made
    made.close()


@pytest.fixture
def page(context: BrowserContext, request: pytest.FixtureRequest) -> Iterator[Page]:
    opened = context.new_page()
    yield opened
    # What was on the screen at the end, for whoever wonders why a test failed.
    picture(opened, f"end-of-{request.node.name}", full=False)


def sign_in(page: Page, demo: Demo, name: str) -> None:
    """Signs in as a person does, and lands on "My instances"."""
    page.goto("/")
    page.get_by_label("User name").fill(name)
    page.get_by_label("Password", exact=True).fill(demo.password(name))
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="My instances", level=1)).to_be_visible()


def picture(page: Page, name: str, *, full: bool = True) -> None:
    """Keeps a screenshot for people to look at."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=str(PICTURES / f"{name}.png"), full_page=full)
