"""Pictures of every page, for people to look at, and what a program can say about them: nothing overflows."""

from __future__ import annotations

from datetime import timedelta

import pytest

from visahub.model.instance import Instance, Phase, new_instance_id
from visahub.model.launch import Step

from .browser import DESK, PHONE, chromium, picture, visitor
from .conftest import Site
from .fake_hub import STEPS

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


def a_usual_start(site: Site, instance: Instance, seconds: float = 2.0) -> Instance:
    now = instance.created
    for step in STEPS:
        site.store.instances.step(instance.id, instance.attempt, step, now)
        now += timedelta(seconds=seconds)
    return site.store.instances.move(instance.id, Phase.READY, now)


def made(site: Site, **changes: object) -> Instance:
    now = site.portal.now() - timedelta(seconds=20)
    owner = site.people["carol"]
    return site.store.instances.admit(
        account=owner,
        server_name=new_instance_id(),
        request=site.request(**changes),
        backend="local",
        now=now,
        deadline=now + timedelta(hours=1),
    )


def four_instances(site: Site) -> dict[str, str]:
    """One ready, one starting, one stopped, one that could not start."""
    failed = made(site, name="sunny-phonon", experiments=["xfel/p700001"], hardware="large")
    site.store.instances.step(failed.id, failed.attempt, STEPS[0], failed.created)
    site.store.instances.note(failed.id, "vncserver: no GPU\nall 8 GPUs are in use", failed.created)
    site.store.instances.move(
        failed.id,
        Phase.ERROR,
        failed.created,
        sentence="All 8 GPUs are in use; the next is expected at 16:30. Nothing was lost.",
    )
    stopped = a_usual_start(site, made(site, name="old-friend", environment="crystal", experiments=["xfel/p700000"]))
    site.store.instances.move(
        stopped.id, Phase.STOPPED, site.portal.now(), stopped=site.portal.now() - timedelta(days=4)
    )
    starting = made(site, name="brave-lattice", environment="tomo", hardware="small", experiments=["xfel/CXIDB-ID-98"])
    site.store.instances.step(starting.id, starting.attempt, STEPS[0], starting.created)
    site.store.instances.step(
        starting.id, starting.attempt, Step(key="files", text="Home and data appear", percent=30), starting.created
    )
    site.store.instances.step(starting.id, starting.attempt, STEPS[2], site.portal.now())
    ready = a_usual_start(site, made(site))
    site.store.instances.touch(ready.id, last_activity=site.portal.now())
    site.store.preferences.put(site.people["carol"].id, {"last": ready.request.as_options()})
    return {"ready": ready.id, "starting": starting.id, "stopped": stopped.id, "failed": failed.id}


async def test_pictures(site: Site) -> None:
    known = four_instances(site)
    async with chromium() as browser:
        for look, options in {
            "": {"viewport": DESK},
            "-phone": {"viewport": PHONE, "has_touch": True},
            "-dark": {"viewport": DESK, "color_scheme": "dark"},
        }.items():
            async with visitor(browser, site, "carol", **options) as page:
                for name, address in PAGES.items():
                    await page.goto(site.home + address.format(**known))
                    await page.wait_for_timeout(300)
                    await picture(page, f"{name}{look}")
                    wide = await page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
                    assert wide <= 0, f"{name}{look} is {wide} px too wide"
