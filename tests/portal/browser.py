"""A real browser for the tests of the portal, logged in as somebody."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, async_playwright, expect

from .conftest import ROOT, Site

expect.set_options(timeout=20_000)

expect.set_options(timeout=20_000)

CHROMIUM = "/usr/bin/chromium"
HAS_CHROMIUM = os.path.exists(CHROMIUM)
PICTURES = ROOT / "build" / "screenshots"
AXE = ROOT / "share/node_modules/axe-core/axe.min.js"
DESK = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    if not HAS_CHROMIUM:
        pytest.skip("Debian's chromium is not installed: apt-get install chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
        )
        yield browser
        await browser.close()


@asynccontextmanager
async def visitor(browser: Browser, site: Site, name: str = "alice", **options: Any) -> AsyncIterator[Page]:
    """Gives a page of somebody; fails afterwards when the page broke a rule of its content security policy."""
    context = await browser.new_context(**({"base_url": site.home, "viewport": DESK} | options))
    await context.add_cookies([{"name": "fake-login", "value": name, "url": site.url}])
    page = await context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield page
    await context.close()
    # A refused request and one that a newer one has overtaken are no mistake of the page.
    wrong = [text for text in complaints if not text.startswith(("htmx:", "Failed to load resource"))]
    assert not wrong, wrong


async def picture(page: Page, name: str) -> Path:
    PICTURES.mkdir(parents=True, exist_ok=True)
    path = PICTURES / f"{name}.png"
    await page.screenshot(path=path, full_page=True)
    return path
