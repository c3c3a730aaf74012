"""The sample data: NeXus files that say what to draw, written once and whole, the same on every machine."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

h5py = pytest.importorskip("h5py")

SCRIPT = Path(__file__).parents[2] / "share" / "samples" / "make_data.py"
EXPERIMENTS: list[dict[str, Any]] = json.loads(SCRIPT.with_name("experiments.json").read_text())


@pytest.fixture(scope="module")
def make_data() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_data", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_data"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def data(make_data: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    assert make_data.make(folder) == len([one for one in EXPERIMENTS if one["path"]])
    return folder


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_every_experiment_with_a_path_has_one_file(data: Path) -> None:
    found = files(data)
    assert {path.relative_to(data).parts[0] for path in found} == {one["path"] for one in EXPERIMENTS if one["path"]}
    assert all(path.suffix == ".nxs" for path in found)
    assert all(10_000 < path.stat().st_size < 600_000 for path in found)


def test_files_are_read_only_and_folders_open_to_instances(data: Path) -> None:
    assert all(path.stat().st_mode & 0o777 == 0o444 for path in files(data))
    assert all(path.stat().st_mode & 0o777 == 0o755 for path in data.rglob("*") if path.is_dir())


def test_each_file_says_what_to_draw(data: Path) -> None:
    for path in files(data):
        with h5py.File(path) as file:
            assert file.attrs["NX_class"] == "NXroot"
            entry = file[file.attrs["default"]]
            assert entry.attrs["NX_class"] == "NXentry"
            assert entry["experiment_identifier"].asstr()[()] == path.relative_to(data).parts[0]
            for group in (entry[entry.attrs["default"]], *entry.values()):
                if group.attrs.get("NX_class") != "NXdata":
                    continue
                signal = group[group.attrs["signal"]]
                assert len(group.attrs["axes"]) == signal.ndim
                for length, axis in zip(signal.shape, group.attrs["axes"], strict=True):
                    assert axis == "." or group[axis].shape == (length,)
                    assert axis == "." or group[axis].attrs["units"]


def test_a_second_run_changes_nothing(make_data: ModuleType, data: Path) -> None:
    before = [(path, path.stat().st_mtime_ns, path.stat().st_ino) for path in files(data)]
    assert make_data.make(data) == 0
    assert [(path, path.stat().st_mtime_ns, path.stat().st_ino) for path in files(data)] == before


def test_a_missing_file_is_written_again_the_same(make_data: ModuleType, data: Path, tmp_path: Path) -> None:
    path = files(data)[0]
    before = hashlib.sha256(path.read_bytes()).digest()
    path.unlink()
    assert make_data.make(data) == 1
    assert hashlib.sha256(path.read_bytes()).digest() == before


def test_a_write_that_fails_leaves_nothing(
    make_data: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(make_data, "_fill", full)
    with pytest.raises(OSError, match="No space left"):
        make_data.make(tmp_path)
    assert files(tmp_path) == []


def test_as_a_program(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    wrong = subprocess.run(
        [sys.executable, SCRIPT, tmp_path / "file"], capture_output=True, text=True, timeout=60, check=False
    )
    assert wrong.returncode == 1
    assert "choose another folder" in wrong.stderr
    assert "Traceback" not in wrong.stderr
