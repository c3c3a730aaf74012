"""A facility for each test, and flows that are in no hurry to wait."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from visahub.flows import launch, patience

from .world import World, template


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return template(tmp_path_factory.mktemp("template"))


@pytest.fixture
def world(tmp_path: Path, empty_database: Path) -> Iterator[World]:
    made = World(tmp_path, empty_database)
    yield made
    made.store.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "WATCH_SECONDS", 0.02)
    monkeypatch.setattr(patience, "PAUSES_SECONDS", (0.01, 0.02))
