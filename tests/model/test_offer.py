"""What may be chosen, and the words for its size."""

from __future__ import annotations

from typing import Any

import pytest

from visahub.model.offer import Environment, Hardware


def hardware(**changes: Any) -> Hardware:
    plain = {"id": "small", "name": "Small", "backend": "local", "place": "here", "cores": 2, "memory_mb": 4096}
    return Hardware(**plain | changes)


@pytest.mark.parametrize(
    ("changes", "size"),
    [
        ({}, "2 cores, 4 GB memory"),
        ({"cores": 1, "memory_mb": 1536}, "1 core, 1.5 GB memory"),
        ({"cores": 40, "memory_mb": 768 * 1024, "gpu": "V100"}, "40 cores, 768 GB memory, V100"),
        ({"memory_mb": 512}, "2 cores, 0.5 GB memory"),
    ],
)
def test_sizes_in_words(changes: dict[str, Any], size: str) -> None:
    assert hardware(**changes).size == size


@pytest.mark.parametrize(
    "changes", [{"id": "Big"}, {"id": ""}, {"id": "a b"}, {"id": "x\n"}, {"cores": 0}, {"memory_mb": 0}]
)
def test_a_wrong_hardware_names_the_setting(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"Visahub\.hardware"):
        hardware(**changes)


def test_a_wrong_environment_names_the_setting() -> None:
    with pytest.raises(ValueError, match=r"Visahub\.environments"):
        Environment(id="../x", name="x")
