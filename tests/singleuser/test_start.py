"""The start page: which notebook opens beside which folder, and that nothing of the user's is overwritten."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from visahub.singleuser import start


def environ(folder: Path, *proposals: str) -> dict[str, str]:
    file = folder / "experiments.json"
    file.write_text(json.dumps([{"proposal": proposal} for proposal in proposals]))
    return {"VISAHUB_EXPERIMENTS": str(file)}


def test_the_first_experiment_is_opened(tmp_path: Path) -> None:
    given = environ(tmp_path, "p700001", "p700002")
    assert start.page(given, tmp_path) == "/lab/tree/start-p700001.ipynb"
    (tmp_path / "experiments" / "p700001").mkdir(parents=True)
    expected = "/lab/tree/start-p700001.ipynb?file-browser-path=%2Fexperiments%2Fp700001"
    assert start.page(given, tmp_path) == expected


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", '[{"proposal": 3}]', '{"a": 1}'])
def test_without_an_experiment_there_is_still_a_page(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    given = {"VISAHUB_EXPERIMENTS": str(tmp_path / "x.json")}
    assert start.read_experiments(given) == []
    assert start.page(given, tmp_path) == "/lab/tree/start.ipynb"
    assert start.page({}, tmp_path) == "/lab/tree/start.ipynb"


@pytest.mark.parametrize(
    "proposal", ["../../etc/passwd", "a/b", "..", "x y?z#", "\N{LATIN SMALL LETTER U WITH DIAERESIS}"]
)
def test_a_proposal_never_leaves_the_home(tmp_path: Path, proposal: str) -> None:
    given = environ(tmp_path, proposal)
    name = start.notebook_name(given)
    assert "/" not in name
    assert ".." not in name
    assert start.first_folder(given, tmp_path) == ""


def test_the_notebook_is_copied_once(tmp_path: Path) -> None:
    given = environ(tmp_path, "p700001")
    copied = start.copy_notebook(given, tmp_path)
    assert copied == tmp_path / "start-p700001.ipynb"
    assert copied.read_bytes() == start.TEMPLATE.read_bytes()
    copied.write_text("changed")
    assert start.copy_notebook(given, tmp_path) == copied
    assert copied.read_text() == "changed"


def test_a_symlink_is_not_followed(tmp_path: Path) -> None:
    home, outside = tmp_path / "home", tmp_path / "outside"
    home.mkdir()
    (home / "start.ipynb").symlink_to(outside)
    start.copy_notebook({}, home)
    assert not outside.exists()


def test_a_home_that_cannot_be_written_keeps_nothing_from_starting(tmp_path: Path) -> None:
    assert start.copy_notebook({}, tmp_path / "absent") is None
