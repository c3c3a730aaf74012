"""Instances in every state, made straight in the store, for the tests of the portal."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from visahub.model.instance import Instance, Phase, new_instance_id
from visahub.model.launch import Step

from .conftest import Site
from .fake_hub import STEPS


def a_usual_start(site: Site, instance: Instance, seconds: float = 2.0) -> Instance:
    now = instance.created
    for step in STEPS:
        site.store.instances.step(instance.id, instance.attempt, step, now)
        now += timedelta(seconds=seconds)
    return site.store.instances.move(instance.id, Phase.READY, now)


def made(site: Site, **changes: Any) -> Instance:
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
