"""The runner of `make bench`: its table, its JSON, and what it makes of measurements that fail. Nothing is timed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import MEASUREMENTS
from benchmarks.figure import Figure
from benchmarks.runner import run

ROOT = Path(__file__).parents[2]
FIELDS = ["name", "unit", "ours", "reference", "reference_is", "ratio", "goal", "met", "runs", "spread"]


def tiny() -> Sequence[Figure]:
    return [
        Figure.of("tea", "s", [1.0, 3.0, 2.0], [4.0, 4.0, 4.0], reference_is="coffee", goal=0.5),
        Figure.of("cups", "1/s", [9.0], [10.0], reference_is="coffee", goal=1.0, is_less_better=False),
        Figure.told("weight", "g", [7.0], what="of one cup"),
    ]


def exploding() -> Sequence[Figure]:
    raise ZeroDivisionError("the kettle\nis empty")


def leaving() -> Sequence[Figure]:
    sys.exit("the kettle has left")


def endless() -> Sequence[Figure]:
    return [Figure("never", "s", float("inf"), 1.0, "coffee", float("nan"), 1.0, False, 1, float("nan"))]


def read(folder: Path) -> list[dict[str, Any]]:
    def refused(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    rows: list[dict[str, Any]] = json.loads((folder / "bench.json").read_text(), parse_constant=refused)
    return rows


def test_each_figure_has_exactly_the_fields_that_were_asked_for(tmp_path: Path) -> None:
    assert run({"tiny": tiny}, [], tmp_path) == 0
    tea, cups, weight = read(tmp_path)
    assert [list(row) for row in (tea, cups, weight)] == [FIELDS] * 3
    assert tea == dict(zip(FIELDS, ["tea", "s", 2.0, 4.0, "coffee", 0.5, 0.5, True, 3, 1.0], strict=True))
    assert (cups["ratio"], cups["met"]) == (0.9, False)
    assert (weight["ours"], weight["reference"], weight["goal"], weight["met"]) == (7.0, None, None, True)


def test_what_explodes_counts_as_not_met_and_the_others_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run({"bad": exploding, "gone": leaving, "tiny": tiny}, [], tmp_path) == 0
    bad, gone, *rest = read(tmp_path)
    assert [row["name"] for row in rest] == ["tea", "cups", "weight"]
    assert bad["met"] is False and bad["ours"] is None and list(bad) == FIELDS
    assert bad["reference_is"] == "could not run: ZeroDivisionError: the kettle is empty"
    assert gone["met"] is False and "the kettle has left" in gone["reference_is"]
    printed = capsys.readouterr()
    assert [line.split()[0] for line in printed.out.splitlines()] == ["figure", "bad", "gone", "tea", "cups", "weight"]
    assert [line.endswith("(NOT MET)") for line in printed.out.splitlines()[1:]] == [True, True, False, True, False]
    assert next(line for line in printed.err.splitlines() if line.startswith("tiny: ")) == "tiny: begins"


def test_what_is_no_number_becomes_null(tmp_path: Path) -> None:
    run({"endless": endless}, [], tmp_path)
    (row,) = read(tmp_path)
    assert (row["ours"], row["ratio"], row["spread"], row["met"]) == (None, None, None, False)


def test_only_runs_what_is_named(tmp_path: Path) -> None:
    assert run({"bad": exploding, "tiny": tiny}, ["tiny"], tmp_path) == 0
    assert [row["name"] for row in read(tmp_path)] == ["tea", "cups", "weight"]


def test_a_name_that_does_not_exist_is_told_with_those_that_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run({"bad": exploding, "tiny": tiny}, ["tinny"], tmp_path) == 2
    assert capsys.readouterr().err == "There is no measurement 'tinny'. Known are bad, tiny.\n"
    assert not (tmp_path / "bench.json").exists()


def test_ctrl_c_ends_the_run(tmp_path: Path) -> None:
    def interrupted() -> Sequence[Figure]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run({"bad": interrupted, "tiny": tiny}, [], tmp_path)


def test_the_program_knows_its_measurements() -> None:
    command = [sys.executable, "-m", "benchmarks", "tea"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and all(name in done.stderr for name in MEASUREMENTS)
