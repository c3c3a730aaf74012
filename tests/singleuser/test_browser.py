"""The desktop in a real browser, as its user sees it: beside JupyterLab, with clipboard, and coming back by itself."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from visahub.singleuser import processes, runtime
from visahub.singleuser.gate import FULL, MAX_CONNECTIONS

from .conftest import CHECKOUT, Place, wait_for, words_of
from .lab import TOKEN, Lab, running

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

CHROMIUM = "/usr/bin/chromium"
PICTURES = CHECKOUT / "build" / "screenshots"
AXE = CHECKOUT / "share" / "node_modules" / "axe-core" / "axe.min.js"
# Umlauts, Greek, Chinese and an emoji beyond the first 65536 characters.
TEXT = "Größe äöü ß, αβγ λ = 1.54 Å, 中文样品, 🔬"


@pytest.fixture(scope="module")
def lab(place: Place) -> Iterator[Lab]:
    with running(place) as made:
        yield made


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not os.path.exists(CHROMIUM):
        pytest.skip("Debian's chromium is not installed: apt-get install chromium")
    PICTURES.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield made
        made.close()


@pytest.fixture
def context(browser: Browser, lab: Lab) -> Iterator[BrowserContext]:
    made = browser.new_context(viewport={"width": 1280, "height": 800}, locale="en-GB")
    made.grant_permissions(["clipboard-read", "clipboard-write"], origin=lab.address)
    yield made
    made.close()


@pytest.fixture
def page(context: BrowserContext, lab: Lab) -> Iterator[Page]:
    """The desktop's own page, connected. Whatever the browser complains about fails the test."""
    made = context.new_page()
    complaints: list[str] = []
    made.on("pageerror", lambda error: complaints.append(str(error)))
    made.on("console", lambda line: complaints.append(line.text) if "Content Security Policy" in line.text else None)
    made.goto(f"{lab.address}/desktop/?token={TOKEN}")
    expect(made.locator("#notice")).to_be_hidden(timeout=60_000)
    yield made
    assert complaints == []


def shell(lab: Lab, *words: str) -> str:
    """Runs a program on the desktop's display; gives what it wrote."""
    done = lab.place.run(*words, **on_display(lab))
    assert done.returncode == 0, done.stderr
    return done.stdout


def on_display(lab: Lab) -> dict[str, str]:
    daemon = runtime.running(lab.place.runtime)
    assert daemon
    for pid in processes.descendants(daemon):
        words = words_of(pid)
        if words[0] == "Xvnc":
            return {"DISPLAY": words[1], "XAUTHORITY": str(lab.place.runtime.cookie)}
    raise AssertionError("no Xvnc")


def type_in_terminal(page: Page, lab: Lab, line: str) -> None:
    """Opens a terminal on the whole desktop and types into it as a person would, through the browser."""
    terminal = lab.place.popen("xterm", "-maximized", "-e", "sh", **on_display(lab))
    wait_for(lambda: "sh" in lab.place.run("xdotool", "getactivewindow", "getwindowname", **on_display(lab)).stdout)
    page.mouse.click(640, 400)
    page.keyboard.type(line + "\n", delay=15)
    try:
        wait_for(lambda: (lab.place.home / "done").exists())
    finally:
        terminal.terminate()
        terminal.wait()
        (lab.place.home / "done").unlink(missing_ok=True)


def test_the_desktop_opens_in_a_tab_of_jupyterlab(context: BrowserContext, lab: Lab) -> None:
    page = context.new_page()
    page.goto(f"{lab.address}/lab?token={TOKEN}")
    page.locator(".jp-LauncherCard", has_text="Desktop").first.click(timeout=60_000)
    frame = page.frame_locator("iframe.jp-IFrame, .jp-ServerProxy iframe").first
    expect(frame.locator("#notice")).to_be_hidden(timeout=60_000)
    expect(frame.locator("#state")).to_have_text("Connected")
    wait_for(lambda: lab.place.run("xdotool", "search", "--class", "xfce4-panel", **on_display(lab)).stdout)
    page.wait_for_timeout(2000)
    page.screenshot(path=PICTURES / "desktop-in-jupyterlab.png")
    frame.get_by_role("button", name="Full screen").click()
    wait_for(lambda: page.evaluate("document.fullscreenElement?.tagName") == "IFRAME")
    page.close()


def test_what_is_typed_arrives(page: Page, lab: Lab) -> None:
    type_in_terminal(page, lab, "echo 'Zyan {[@]} | x_y' > typed && touch done")
    assert (lab.place.home / "typed").read_text() == "Zyan {[@]} | x_y\n"
    page.screenshot(path=PICTURES / "desktop.png")


def test_a_keyboard_layout_is_changed_at_once(page: Page, lab: Lab) -> None:
    page.get_by_label("Keyboard layout").select_option("de")
    expect(page.locator("#state")).to_have_text("Keyboard: German")
    assert re.search(r"layout:\s+de", shell(lab, "setxkbmap", "-query"))
    type_in_terminal(page, lab, "echo 'yz{[]}@ ' > german && touch done")
    assert (lab.place.home / "german").read_text() == "yz{[]}@ \n"
    page.get_by_label("Keyboard layout").select_option("us")
    expect(page.locator("#state")).to_have_text("Keyboard: English (US)")


def test_the_clipboard_goes_both_ways(page: Page, lab: Lab) -> None:
    # Into the desktop, by the panel.
    page.get_by_role("button", name="Clipboard").click()
    page.locator("#clipboard-text").fill(TEXT)
    page.get_by_role("button", name="Send to the desktop").click()
    expect(page.locator("#clipboard-said")).to_have_text("Sent. Paste it in the desktop.")
    wait_for(lambda: lab.place.run("xclip", "-o", "-selection", "clipboard", **on_display(lab)).stdout == TEXT)
    page.screenshot(path=PICTURES / "desktop-clipboard.png")
    # Out of the desktop, into the panel and the browser's own clipboard.
    (lab.place.home / "text").write_text(TEXT[::-1], encoding="utf-8")
    copy = lab.place.popen("xclip", "-i", "-selection", "clipboard", "-quiet", "text", **on_display(lab))
    expect(page.locator("#clipboard-text")).to_have_value(TEXT[::-1], timeout=20_000)
    assert page.evaluate("navigator.clipboard.readText()") == TEXT[::-1]
    copy.terminate()
    copy.wait()
    # Into the desktop by itself, when the pointer comes back to it.
    page.keyboard.press("Escape")
    page.evaluate("navigator.clipboard.writeText('from outside')")
    page.mouse.move(640, 10)
    page.mouse.move(640, 400)
    wait_for(
        lambda: "from outside" in lab.place.run("xclip", "-o", "-selection", "clipboard", **on_display(lab)).stdout
    )


def test_the_desktop_follows_the_window(page: Page, lab: Lab) -> None:
    page.set_viewport_size({"width": 1000, "height": 640})
    bar = page.locator("#bar").bounding_box()
    assert bar
    wait_for(lambda: f"1000x{640 - round(bar['height'])}" in shell(lab, "xdpyinfo"))


def test_it_comes_back_after_the_connection_is_lost(page: Page, lab: Lab) -> None:
    daemon = runtime.running(lab.place.runtime)
    assert daemon
    lab.stop()
    # The daemon holds the connection, so that a restart of the server alone is not even noticed.
    page.wait_for_timeout(1000)
    expect(page.locator("#state")).to_have_text("Connected")
    # The network changes, as with another WLAN: the connection is made again.
    page.evaluate("window.dispatchEvent(new Event('online'))")
    expect(page.locator("#notice-title")).to_have_text("Connection lost", timeout=30_000)
    expect(page.locator("#notice-count")).to_have_text(re.compile(r"Next try in \d+ s\."), timeout=30_000)
    page.wait_for_timeout(4000)
    page.screenshot(path=PICTURES / "desktop-lost.png")
    lab.start()
    page.get_by_role("button", name="Reconnect now").click()
    expect(page.locator("#notice")).to_be_hidden(timeout=60_000)
    assert runtime.running(lab.place.runtime) == daemon, "the programs went on running"


def test_it_comes_back_after_the_daemon_was_killed(page: Page, lab: Lab) -> None:
    daemon = runtime.running(lab.place.runtime)
    assert daemon
    os.kill(daemon, signal.SIGKILL)
    expect(page.locator("#notice-count")).to_have_text(re.compile(r"Next try in \d+ s\."), timeout=30_000)
    expect(page.locator("#notice")).to_be_hidden(timeout=60_000)
    assert runtime.running(lab.place.runtime) != daemon


def test_it_comes_back_after_sleep(page: Page, lab: Lab) -> None:
    """The computer slept: no tick for long, and a connection that only looks alive."""
    page.evaluate("const real = Date.now; Date.now = () => real() + 3_600_000")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(page.locator("#notice")).to_be_visible()
    expect(page.locator("#notice")).to_be_hidden(timeout=30_000)
    expect(page.locator("#state")).to_have_text("Connected")


def viewer(lab: Lab) -> socket.socket:
    """Opens the desktop once more, past the browser."""
    link = socket.socket(socket.AF_UNIX)
    link.settimeout(30)
    link.connect(str(lab.place.runtime.gate))
    for size, answer in ((12, b"RFB 003.008\n"), (2, b"\1"), (4, b"\1"), (24, b"")):
        assert link.recv(size)
        link.sendall(answer)
    return link


def test_limit_a_desktop_that_is_open_too_often_says_so(page: Page, lab: Lab) -> None:
    address = page.url
    page.goto("about:blank")
    wait_for(lambda: b'"connections": 0' in (lab.get("/desktop/status") or b""))
    opened = [viewer(lab) for _ in range(MAX_CONNECTIONS)]
    try:
        page.goto(address)
        expect(page.locator("#notice-title")).to_have_text("Open too often", timeout=30_000)
        expect(page.locator("#notice-text")).to_have_text(FULL)
        expect(page.locator("#notice-count")).to_have_text("")
    finally:
        for each in opened:
            each.close()
    page.get_by_role("button", name="Reconnect now").click()
    expect(page.locator("#notice")).to_be_hidden(timeout=30_000)


def test_without_a_mouse_the_bar_is_reached(page: Page, lab: Lab) -> None:
    page.get_by_role("button", name="Hide this bar").click()
    expect(page.locator("#bar")).to_be_hidden()
    page.screenshot(path=PICTURES / "desktop-folded.png")
    page.mouse.click(640, 400)
    page.keyboard.press("Control+Alt+Shift+KeyM")
    expect(page.get_by_label("Keyboard layout")).to_be_focused()
    # No modifier stays pressed in the desktop.
    page.mouse.click(640, 400)
    type_in_terminal(page, lab, "echo free > keys && touch done")
    assert (lab.place.home / "keys").read_text() == "free\n"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_accessible(browser: Browser, lab: Lab, scheme: str) -> None:
    if not AXE.exists():
        pytest.skip("axe-core is not installed: run npm ci in share/")
    context = browser.new_context(bypass_csp=True, color_scheme=scheme, viewport={"width": 1280, "height": 800})  # type: ignore[arg-type]
    page = context.new_page()
    page.goto(f"{lab.address}/desktop/?token={TOKEN}")
    expect(page.locator("#notice")).to_be_hidden(timeout=60_000)
    page.add_script_tag(path=AXE)
    for state in ("shown", "panel", "lost"):
        if state == "panel":
            page.get_by_role("button", name="Clipboard").click()
        if state == "lost":
            page.evaluate("document.getElementById('notice').hidden = false")
        found = page.evaluate("axe.run({ runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa', 'wcag22aa', 'best-practice'] })")
        assert [(each["id"], each["nodes"][0]["html"]) for each in found["violations"]] == [], state
    page.screenshot(path=PICTURES / f"desktop-{scheme}.png")
    context.close()


def test_what_is_missing_is_said_on_the_page(browser: Browser, own_place: Place) -> None:
    own_place.environ["PATH"] = str(Path(sys.executable).parent)
    with running(own_place) as lab:
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(f"{lab.address}/desktop/?token={TOKEN}")
        expect(page.locator("#notice-title")).to_have_text("The desktop is not running", timeout=60_000)
        expect(page.locator("#notice-text")).to_contain_text("Xvnc")
        expect(page.locator("#notice-text")).to_contain_text("Ask the administrator")
        expect(page.get_by_role("button", name="Start again")).to_be_visible()
        page.screenshot(path=PICTURES / "desktop-missing.png")
        page.close()
