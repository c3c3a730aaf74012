"""The main job as a scientist does it: sign in, choose, start, work in JupyterLab and on the desktop, stop, delete."""

from __future__ import annotations

import re
import time

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import picture, sign_in
from tests.services.demo import Demo

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]


def choose_p700002(page: Page) -> None:
    """Searches as one types and chooses the experiment by keyboard."""
    page.goto("/services/visahub/new")
    expect(page.get_by_role("heading", name="New instance")).to_be_visible()
    page.get_by_label("Search experiments").press_sequentially("fxe exam", delay=30)
    row = page.get_by_role("checkbox", name=re.compile("p700002"))
    expect(row).to_be_visible()
    expect(page.get_by_role("checkbox", name=re.compile("p700001"))).to_have_count(0)
    row.focus()
    page.keyboard.press("Space")
    expect(page.get_by_role("button", name="Remove p700002")).to_be_visible()


def test_from_login_to_desktop_and_back(page: Page, demo: Demo) -> None:
    page.goto("/")
    picture(page, "demo-login")
    sign_in(page, demo, "alice")
    expect(page.get_by_text("You have no instance yet")).to_be_visible()
    picture(page, "demo-instances-empty")

    choose_p700002(page)
    picture(page, "demo-spawn")
    page.get_by_role("radio", name=re.compile("^Data analysis")).check()
    page.get_by_role("radio", name=re.compile("^Small")).check()
    expect(page.get_by_role("radio", name=re.compile("^Large"))).to_be_disabled()
    page.get_by_text("Name, screen, keyboard, notes").click()
    page.get_by_label("Name", exact=True).fill("main-job")
    expect(page.get_by_label("Keyboard")).to_have_value("de")
    page.get_by_role("button", name="Start", exact=True).click()

    # The progress page leads to JupyterLab by itself.
    page.wait_for_url(re.compile(r"/user/alice/i[a-z0-9]+/lab"), timeout=90_000)
    lab_is_ready(page)
    comes_from_the_portal(page)
    run_first_cell(page)
    picture(page, "demo-lab-notebook", full=False)
    open_desktop_tab(page)
    picture(page, "demo-lab-desktop", full=False)

    server = re.search(r"/user/alice/(i[a-z0-9]+)/", page.url)
    assert server is not None
    name = server.group(1)
    desktop_types_into_a_file(page, demo, name)
    stop_start_delete(page, name)


def lab_is_ready(page: Page) -> None:
    expect(page.locator(".jp-NotebookPanel").first).to_be_visible(timeout=60_000)
    expect(page.locator(".jp-FileBrowser .jp-DirListing")).to_be_visible()


def comes_from_the_portal(page: Page) -> None:
    """JupyterLab's own files have one address for all instances; only extensions come from the instance."""
    names = page.evaluate("performance.getEntriesByType('resource').map(entry => new URL(entry.name).pathname)")
    shared = [name for name in names if name.startswith("/services/visahub/lab/") and name.endswith(".js")]
    assert len(shared) > 20, names
    assert not [name for name in names if "/static/lab/" in name]


def run_first_cell(page: Page) -> None:
    """Runs the whole start page notebook; its plot is an image below the last cell."""
    panel = page.locator(".jp-NotebookPanel:not(.lm-mod-hidden)").first
    # The first kernel compiles its modules; a notebook that is run before asks which kernel to take.
    expect(page.get_by_text(re.compile(r"Python 3 \(ipykernel\) \| Idle"))).to_be_visible(timeout=90_000)
    page.get_by_role("menuitem", name="Run").first.click()
    page.get_by_role("menuitem", name=re.compile("^Run All Cells")).first.click()
    expect(panel.locator(".jp-OutputArea img").first).to_be_visible(timeout=60_000)
    expect(panel.get_by_text("FXE example data").first).to_be_visible()


def open_desktop_tab(page: Page) -> None:
    """Opens the launcher and its Desktop tile, beside the notebook."""
    page.get_by_role("menuitem", name="File").first.click()
    page.get_by_role("menuitem", name=re.compile("^New Launcher")).first.click()
    page.locator(".jp-LauncherCard", has_text="Desktop").click()
    frame = page.frame_locator("iframe[src*='desktop']")
    expect(frame.locator("canvas")).to_be_visible(timeout=60_000)
    drag_beside(page, page.locator(".lm-TabBar-tab", has_text="Desktop").last)
    expect(page.locator(".jp-NotebookPanel").first).to_be_visible()
    expect(frame.locator("canvas")).to_be_visible()
    time.sleep(4)  # XFCE paints its panel; the picture is for people, nothing is asserted on it


def drag_beside(page: Page, tab: Locator) -> None:
    """Drags a tab to the right edge of the window, where it gets half of it."""
    box = tab.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 40, box["y"] + 10)
    page.mouse.down()
    # Up and out of the bar first: over the desktop's frame a drag that has not begun yet would be the frame's.
    page.mouse.move(box["x"] + 60, box["y"] - 30, steps=8)
    page.mouse.move(900, 400, steps=12)
    page.mouse.move(1200, 450, steps=12)
    page.mouse.up()


def desktop_types_into_a_file(page: Page, demo: Demo, name: str) -> None:
    """Opens a terminal from the panel, types into it, and finds the text in the home directory."""
    page.goto(f"/user/alice/{name}/desktop/")
    canvas = page.locator("canvas")
    expect(canvas).to_be_visible(timeout=60_000)
    expect(page.get_by_text("Connected")).to_be_visible()
    typed = demo.home("alice") / "typed.txt"
    until = time.monotonic() + 90
    while not typed.exists() and time.monotonic() < until:
        # XFCE paints its panel when it is ready, which nobody tells: press its terminal until one is there.
        time.sleep(3)
        box = canvas.bounding_box()
        assert box is not None
        page.mouse.click(box["x"] + 123, box["y"] + box["height"] - 17)
        time.sleep(6)
        page.keyboard.type("echo typed-on-the-desktop > typed.txt\n", delay=40)
        time.sleep(2)
    picture(page, "demo-desktop-terminal", full=False)
    assert typed.read_text() == "typed-on-the-desktop\n"


def stop_start_delete(page: Page, name: str) -> None:
    page.goto("/services/visahub/")
    here = page.locator("article.vh-instance", has_text="main-job")
    expect(here.get_by_role("link", name="JupyterLab")).to_be_visible()
    picture(page, "demo-instances")
    here.get_by_label("More for main-job").click()
    here.get_by_role("button", name="Stop").click()
    here = page.locator("article.vh-instance", has_text="main-job")
    expect(here.get_by_role("button", name="Start")).to_be_visible(timeout=60_000)
    picture(page, "demo-instances-stopped")
    here.get_by_role("button", name="Start").click()
    page.wait_for_url(re.compile(rf"/user/alice/{name}/lab"), timeout=90_000)
    page.goto("/services/visahub/")
    here = page.locator("article.vh-instance", has_text="main-job")
    here.get_by_label("More for main-job").click()
    here.get_by_role("link", name=re.compile("Delete")).click()
    picture(page, "demo-delete", full=False)
    page.get_by_role("button", name="Delete main-job").click()
    expect(page.locator("article.vh-instance", has_text="main-job")).to_have_count(0, timeout=60_000)


def test_a_deep_link_chooses_and_starts_nothing(page: Page, demo: Demo) -> None:
    sign_in(page, demo, "bob")
    page.goto("/services/visahub/new?proposal=p700001&proposal=nowhere&environment=notebooks&hardware=medium")
    expect(page.get_by_role("button", name="Remove p700001")).to_be_visible()
    expect(page.get_by_text(re.compile("nowhere"))).to_be_visible()
    expect(page.get_by_role("radio", name=re.compile("^Notebooks only"))).to_be_checked()
    expect(page.get_by_role("radio", name=re.compile("^Medium"))).to_be_checked()
    picture(page, "demo-spawn-deep-link")
    page.goto("/hub/spawn/bob/stolen?opt-experiments=p700001&opt-environment=notebooks&opt-hardware=small")
    page.goto("/services/visahub/")
    expect(page.get_by_text("You have no instance yet")).to_be_visible()
