"""Pictures of every page, for people to look at, and what a program can say about them: nothing overflows."""

from __future__ import annotations

from typing import Any

import pytest

from .browser import DESK, PHONE, chromium, picture, visitor
from .conftest import Site
from .making import four_instances

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.browser, pytest.mark.slow]

PAGES = {
    "instances": "",
    "spawn": "new?experiment=xfel/700002&text=example",
    "spawn-gpu": "new?experiment=petra/11013662&hardware=gpu&proposal=p900001,p1",
    "experiments": "experiments",
    "experiment": "experiments/xfel%2F700002",
    "experiment-team": "experiments/petra%2F11013662",
    "starting": "instances/{starting}/progress",
    "failed": "instances/{failed}/progress",
    "details": "instances/{failed}",
    "delete": "instances/{ready}/delete",
    "not-found": "instances/iabcdefghi",
}

LOOKS: dict[str, dict[str, Any]] = {
    "": {"viewport": DESK},
    "-phone": {"viewport": PHONE, "has_touch": True},
    "-dark": {"viewport": DESK, "color_scheme": "dark"},
}


async def test_pictures(site: Site) -> None:
    known = four_instances(site)
    async with chromium() as browser:
        for look, options in LOOKS.items():
            async with visitor(browser, site, "carol", **options) as page:
                for name, address in PAGES.items():
                    await page.goto(site.home + address.format(**known))
                    await page.wait_for_timeout(300)
                    await picture(page, f"{name}{look}")
                    wide = await page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
                    assert wide <= 0, f"{name}{look} is {wide} px too wide"
