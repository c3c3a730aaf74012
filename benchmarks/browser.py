"""From the click on Start until JupyterLab's first contentful paint in Chromium, over a line of 30 ms and 20 Mbit/s.

Whoever clicks has looked at the page before it for as long as the browser still loads something. Somebody else has
used the Hub before, with a browser of their own.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from tests.services.hub import USER_PASSWORD, RunningHub, wait_until

from . import hubs
from .figure import Figure
from .runner import say

_RUNS = 5
_CHROMIUM = "/usr/bin/chromium"
_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
_LINE = {"offline": False, "latency": 30, "downloadThroughput": 2.5e6, "uploadThroughput": 2.5e6}
_LAB = re.compile(r"/user/[^/]+/[^/]+/lab")
_PAINTED = """() => new Promise(resolve => {
  const look = () => {
    const paint = performance.getEntriesByName('first-contentful-paint')[0];
    if (paint) resolve(performance.timeOrigin + paint.startTime); else setTimeout(look, 20);
  };
  look();
})"""
_STOCK = f"""
c.JupyterHub.spawner_class = "simple"
c.Spawner.cmd = [{str(Path(sys.executable).with_name("jupyterhub-singleuser"))!r}]
c.Spawner.args = ["--allow-root"]
c.SimpleLocalProcessSpawner.home_dir_template = "{{state}}/homes/{{{{username}}}}"
c.Spawner.default_url = "/lab"
c.JupyterHub.default_url = "/hub/home"
"""
_REFERENCE = "a stock Hub beside it"


@dataclass
class Visitor:
    """A browser with an empty cache and a person who is logged in."""

    hub: RunningHub
    page: Page
    name: str

    def starts(self, number: int) -> float:
        """Starts an instance; gives the seconds from the click to the first contentful paint of its JupyterLab."""
        click = self._ours if isinstance(self.hub, hubs.OurHub) else self._stock
        clicked = click(number)
        self.page.wait_for_url(_LAB, wait_until="commit")
        painted: float = self.page.evaluate(_PAINTED)
        self.page.wait_for_load_state("networkidle")
        return (painted - clicked) / 1000

    def _ours(self, number: int) -> float:
        self.page.goto(f"{self.hub.url}/services/visahub/new?environment=lab&hardware=small", wait_until="networkidle")
        now: float = self.page.evaluate("Date.now()")
        self.page.locator("#vh-start").click(no_wait_after=True)
        return now

    def _stock(self, number: int) -> float:
        self.page.goto(f"{self.hub.url}/hub/home", wait_until="networkidle")
        # What the page's "Add new server" does when it is clicked.
        address = f"{self.hub.url}/hub/spawn/{self.name}/s{number}"
        return float(
            self.page.evaluate("address => { const now = Date.now(); location.href = address; return now; }", address)
        )

    def leaves(self) -> None:
        """Stops what was started, so that the next run has the machine for itself."""
        servers = self.hub.api("GET", f"/users/{self.name}").json().get("servers", {})
        for server in servers:
            self.hub.api("DELETE", f"/users/{self.name}/servers/{server}", body={"remove": True})
        wait_until(lambda: not self.hub.api("GET", f"/users/{self.name}").json().get("servers"), "all has stopped")
        self.page.context.close()


def measure() -> list[Figure]:
    """Lets a new visitor of each Hub in turn start a first and a second instance."""
    names = [f"visitor{number}" for number in range(_RUNS + 1)]
    times: dict[tuple[str, str], list[float]] = {
        (who, what): [] for who in ("ours", "stock") for what in ("first", "second")
    }
    with (
        hubs.running(lambda state: hubs.OurHub(state, users=names)) as ours,
        hubs.running(lambda state: hubs.StockHub(state, users=names, more=_STOCK.format(state=state))) as stock,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=_CHROMIUM, args=_ARGUMENTS)
        wait_until(ours.has_portal, "the portal answers")
        stock.enter()
        for run, name in enumerate(names):
            for who, hub in (("ours", ours), ("stock", stock)):
                visitor = _enter(browser, hub, name)
                for number, what in enumerate(("first", "second")):
                    seconds = visitor.starts(number)
                    # The first visitor of all is the somebody else.
                    if run:
                        times[who, what].append(seconds)
                visitor.leaves()
            if run:
                seconds = [f"{who} {what} {times[who, what][-1]:.2f} s" for who, what in times]
                say(f"browser: {', '.join(seconds)}")
        browser.close()
    return [
        Figure.of(
            f"click to JupyterLab's first paint, {what}",
            "s",
            times["ours", what.split()[0]],
            times["stock", what.split()[0]],
            reference_is=_REFERENCE,
            goal=0.6,
        )
        for what in ("first visit", "second instance")
    ]


def _enter(browser: Browser, hub: RunningHub, name: str) -> Visitor:
    page = browser.new_context(viewport={"width": 1280, "height": 860}).new_page()
    page.set_default_timeout(120_000)
    page.context.new_cdp_session(page).send("Network.emulateNetworkConditions", _LINE)
    page.goto(f"{hub.url}/hub/login")
    page.locator("#username_input").fill(name)
    page.locator("#password_input").fill(USER_PASSWORD)
    page.locator("#login_submit").click()
    page.wait_for_load_state("networkidle")
    return Visitor(hub, page, name)
