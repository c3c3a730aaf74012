"""The last word of each backend on what is free."""

from __future__ import annotations

from visahub.model.offer import Hardware, Offer
from visahub.store.database import Store
from visahub.testing.clock import Clock


def offer(key: str, is_free: bool | None) -> Offer:
    hardware = Hardware(id=key, name=key, backend="local", place="here", cores=1, memory_mb=1024)
    return Offer(hardware=hardware, is_free=is_free, sentence=f"{key} says")


def test_a_snapshot_replaces_only_that_backends(store: Store, clock: Clock) -> None:
    store.offers.save("local", [offer("small", True), offer("large", False)], clock())
    store.offers.save("slurm", [offer("gpu", None)], clock())
    later = clock.forward(seconds=5)
    store.offers.save("local", [offer("small", False)], later)
    assert store.offers.all() == {
        "small": (False, "small says", later),
        "gpu": (None, "gpu says", clock.forward(seconds=-5)),
    }
    store.offers.save("slurm", [], later)
    assert set(store.offers.all()) == {"small"}
