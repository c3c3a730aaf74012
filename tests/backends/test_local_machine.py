"""What is free on this machine, also inside a container with a limit of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from visahub.backends.local_machine import free_memory_mb, offer

from .conftest import HARDWARE

MEMINFO = "MemTotal:       24683000 kB\nMemFree:  100 kB\nMemAvailable:   8192000 kB\n"


@pytest.fixture
def meminfo(tmp_path: Path) -> Path:
    path = tmp_path / "meminfo"
    path.write_text(MEMINFO)
    return path


def test_the_machine_s_own_number_counts(meminfo: Path, tmp_path: Path) -> None:
    assert free_memory_mb(meminfo, tmp_path) == 8000


@pytest.mark.parametrize(
    ("limit", "used"),
    [("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")],
)
def test_a_container_s_limit_counts_when_it_is_less(meminfo: Path, tmp_path: Path, limit: str, used: str) -> None:
    (tmp_path / "memory").mkdir()
    (tmp_path / used).write_text(f"{1024**3}\n")
    (tmp_path / limit).write_text(f"{3 * 1024**3}\n")
    assert free_memory_mb(meminfo, tmp_path) == 2048
    (tmp_path / limit).write_text("max\n")
    assert free_memory_mb(meminfo, tmp_path) == 8000


def test_the_sentence_tells_what_is_missing() -> None:
    assert offer(HARDWARE, 512).is_free
    assert "0.5 of 4 GB" in offer(replace(HARDWARE, memory_mb=4096), 512).sentence.replace("4.0", "4")
    assert not offer(replace(HARDWARE, cores=4096), 10_000).is_free
