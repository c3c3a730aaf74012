"""The start page notebook: runs with, without and with odd experiments, and draws what a file asks for."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

h5py = pytest.importorskip("h5py")
np = pytest.importorskip("numpy")
matplotlib = pytest.importorskip("matplotlib")
plt = pytest.importorskip("matplotlib.pyplot")
IPython = pytest.importorskip("IPython")
pytest.importorskip("IPython.display")

NOTEBOOK = Path(__file__).parents[2] / "visahub" / "singleuser" / "start.ipynb"
CELLS: list[dict[str, Any]] = json.loads(NOTEBOOK.read_text())["cells"]
SAMPLES = Path(__file__).parents[2] / "share" / "samples"

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Runs the cells as a kernel in a home would, with these experiments, and tells what was shown."""
    matplotlib.use("Agg")
    shown: list[str] = []
    drawn: list[dict[str, Any]] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(IPython.display, "display", lambda item: shown.append(item.data))
    monkeypatch.setattr(plt, "show", lambda: drawn.append(described(plt.gcf().axes[0])))

    def run_cells(experiments: object = None) -> dict[str, Any]:
        monkeypatch.delenv("VISAHUB_EXPERIMENTS", raising=False)
        if experiments is not None:
            listed = tmp_path / "listed.json"
            listed.write_text(experiments if isinstance(experiments, str) else json.dumps(experiments))
            monkeypatch.setenv("VISAHUB_EXPERIMENTS", str(listed))
        scope: dict[str, Any] = {}
        for cell in CELLS:
            if cell["cell_type"] == "code":
                exec("".join(cell["source"]), scope)
        return {"shown": shown, "drawn": drawn, "printed": capsys.readouterr().out}

    yield run_cells
    plt.close("all")


def described(plot: Any) -> dict[str, Any]:
    return {
        "title": plot.get_title(),
        "x": plot.get_xlabel(),
        "y": plot.get_ylabel(),
        "images": len(plot.images),
        "lines": len(plot.lines),
    }


def experiment(link: Path | str = "", **changes: Any) -> dict[str, Any]:
    return {
        "proposal": "p1",
        "title": "A title",
        "instrument": "P03",
        "start": "2026-01-01",
        "end": "2026-01-02",
        "team": [{"username": "alice", "name": "Alice Sample", "role": "pi"}],
        "link": str(link),
    } | changes


def test_the_cells_are_empty_and_valid() -> None:
    for cell in CELLS:
        assert cell["id"]
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None
            ast.parse("".join(cell["source"]))


@pytest.mark.parametrize("experiments", [None, [], "", "{", "{}", "[5]"])
def test_without_an_experiment_there_is_a_sentence(run: Run, experiments: object) -> None:
    told = run(experiments)
    assert told["shown"] == told["drawn"] == []
    assert "started without an experiment" in told["printed"]
    assert "no NeXus or HDF5 file" in told["printed"]


def test_texts_of_the_catalogue_are_escaped(run: Run) -> None:
    evil = "<script>alert(1)</script>"
    told = run([experiment(title=evil, proposal=evil, note=evil, team=[{"username": "x", "name": evil}])])
    assert "<script" not in told["shown"][0]
    assert told["shown"][0].count("&lt;script&gt;") == 4


def test_the_table_leaves_out_what_is_not_known(run: Run) -> None:
    told = run([{"proposal": "p1", "title": None, "team": None, "end": None}, experiment(doi="10.5072/x")])
    assert "None" not in told["shown"][0]
    assert "Team" not in told["shown"][0]
    for text in ("A title", "Alice Sample", "2026-01-01 to 2026-01-02", "10.5072/x"):
        assert text in told["shown"][1]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    subprocess.run([sys.executable, SAMPLES / "make_data.py", folder], check=True, timeout=60)
    return folder


@pytest.mark.parametrize(
    ("proposal", "drawn"),
    [
        ("p700002", {"title": "run_0001.nxs", "x": "image 7 of 12", "images": 1, "lines": 0}),
        ("p700000", {"title": "scan_0001.nxs", "x": "energy (keV)", "y": "absorption", "images": 0, "lines": 1}),
        ("11012988", {"title": "slice_0001.nxs", "images": 1, "lines": 0}),
    ],
)
def test_sample_data_are_drawn(run: Run, data: Path, proposal: str, drawn: dict[str, Any]) -> None:
    told = run([experiment(data / proposal)])
    assert drawn.items() <= told["drawn"][0].items()


def test_the_link_in_the_home_is_followed(run: Run, data: Path, tmp_path: Path) -> None:
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "p700002").symlink_to(data / "p700002")
    assert run([experiment("experiments/p700002")])["drawn"]


def test_the_first_experiment_with_a_file_is_drawn(run: Run, data: Path) -> None:
    told = run([experiment("absent"), experiment(""), experiment(data / "p700000")])
    assert told["drawn"][0]["title"] == "scan_0001.nxs"


def test_a_file_without_nexus_attributes_says_what_it_has(run: Run, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    with h5py.File(tmp_path / "d" / "plain.h5", "w") as file:
        file["frames"] = [1, 2]
    told = run([experiment("d")])
    assert told["drawn"] == []
    assert "does not say what to draw. It contains: frames." in told["printed"]


def test_a_file_without_default_is_drawn_by_its_first_signal(run: Run, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    with h5py.File(tmp_path / "d" / "old.h5", "w") as file:
        group = file.create_group("a/b")
        group.attrs.update(signal="y", axes="x")
        group["y"], group["x"] = np.arange(5), np.arange(5)
    assert run([experiment("d")])["drawn"][0]["x"] == "x"


def test_only_one_image_of_a_large_stack_is_read(run: Run, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    with h5py.File(tmp_path / "d" / "big.h5", "w") as file:
        file.attrs["default"] = "data"
        group = file.create_group("data")
        group.attrs["signal"] = "frames"
        # 4 TB when read as a whole.
        group.create_dataset("frames", shape=(1_000_000, 1000, 1000), dtype="f4", chunks=(1, 1000, 1000))
    assert run([experiment("d")])["drawn"][0]["x"] == "image 500001 of 1000000"
