"""Experiments from a file: the two formats say the same, and an error says where it is and what to do."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from traitlets.config import Config

from visahub.model.errors import Refused, Unavailable, VisahubError
from visahub.model.experiment import Experiment, Member, TeamRole
from visahub.sources.files import FilesSource

ROW = {"id": "11013662", "proposal": "11013662", "title": "Films", "instrument": "P03"}
FULL = {
    **ROW,
    "start": "2026-10-02",
    "end": "2026-10-05",
    "public_at": "2029-10-05",
    "path": "/data/11013662",
    "doi": "10.5072/x",
    "url": "https://example.org/11013662",
    "summary": "Two lines,\nand a comma.",
    "licence": "CC BY 4.0",
    "technique": "GISAXS",
}
TEAM = [
    {"username": "alice", "name": "Alice Sample", "role": "pi"},
    {"username": "bob", "name": "Bob Sample"},
    {"username": "isabel", "role": "local-contact"},
]
WANTED = Experiment(
    id="11013662",
    proposal="11013662",
    title="Films",
    instrument="P03",
    start=date(2026, 10, 2),
    end=date(2026, 10, 5),
    public_at=date(2029, 10, 5),
    path="/data/11013662",
    doi="10.5072/x",
    url="https://example.org/11013662",
    summary="Two lines,\nand a comma.",
    licence="CC BY 4.0",
    technique="GISAXS",
    team=(
        Member("alice", "Alice Sample", TeamRole.PRINCIPAL_INVESTIGATOR),
        Member("bob", "Bob Sample"),
        Member("isabel", "", TeamRole.LOCAL_CONTACT),
    ),
    source="files",
    is_sample=True,
)

Read = Callable[..., list[Experiment]]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Writes rows, or a text, to a file and reads it."""

    def write_and_read(content: object, name: str = "catalogue.json", **settings: str) -> list[Experiment]:
        file = tmp_path / name
        if isinstance(content, bytes):
            file.write_bytes(content)
        else:
            file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return list(FilesSource(path=str(file), **settings).experiments())

    return write_and_read


def as_csv(tmp_path: Path, *rows: dict[str, str]) -> str:
    file = tmp_path / "made.csv"
    with file.open("w", newline="", encoding="utf-8") as sink:
        writer = csv.DictWriter(sink, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return file.read_bytes().decode()


def test_json(read: Read) -> None:
    assert read([{**FULL, "team": TEAM, "is_sample": True}]) == [WANTED]


def test_csv_says_the_same(read: Read, tmp_path: Path) -> None:
    team = "alice:Alice Sample:pi; bob:Bob Sample;isabel::local-contact ; "
    text = as_csv(tmp_path, {**FULL, "team": team, "is_sample": "yes"})
    assert read(text, "catalogue.CSV") == [WANTED]


def test_a_spreadsheet_s_byte_order_mark_is_skipped(read: Read) -> None:
    assert read(b"\xef\xbb\xbfid,proposal,title,instrument\r\n1,1,t,P03\r\n", "a.csv")[0].id == "1"
    assert read(b"\xef\xbb\xbf[]") == []


def test_what_is_not_said_is_empty(read: Read) -> None:
    found = read([{**ROW, "start": None, "team": None, "path": None, "doi": ""}])[0]
    assert found == Experiment(**ROW, source="files")


def test_the_id_of_the_source_is_kept(read: Read) -> None:
    assert read([ROW], id="course")[0].source == "course"


def test_relative_paths_lie_in_the_root_of_the_data(read: Read, tmp_path: Path) -> None:
    rows = [{**ROW, "path": "11013662/raw"}]
    assert read(rows, data_root="/data")[0].path == "/data/11013662/raw"
    assert read(rows)[0].path == f"{tmp_path}/11013662/raw"
    assert read([{**ROW, "path": "/gpfs/x"}], data_root="/data")[0].path == "/gpfs/x"


def test_settings_come_from_the_configuration(tmp_path: Path) -> None:
    config = Config({"FilesSource": {"path": str(tmp_path / "x.json"), "data_root": "/data", "id": "course"}})
    source = FilesSource(config=config)
    assert (source.id, source.data_root) == ("course", "/data")


@pytest.mark.parametrize(
    ("changes", "column", "why"),
    [
        ({"id": ""}, "id", "needed"),
        ({"title": None}, "title", "needed"),
        ({"proposal": 11013662}, "proposal", "quotes"),
        ({"title": "x" * 5001}, "title", "shorten"),
        ({"id": "x" * 201}, "id", "shorten"),
        ({"title": "a\x00b"}, "title", "control"),
        ({"title": "a\u202eb"}, "title", "control"),
        ({"start": "2.10.2026"}, "start", "date like 2026-11-21"),
        ({"start": "2026-02-30"}, "start", "date like"),
        ({"end": "2026-10-05T08:00"}, "end", "date like"),
        ({"start": "2026-10-02", "end": "2026-10-01"}, "end", "before the start"),
        ({"path": "../../etc"}, "path", "'..'"),
        ({"path": "/data/../etc"}, "path", "'..'"),
        ({"path": "/"}, "path", "whole file system"),
        ({"path": "/a\nb"}, "path", "control"),
        ({"path": "/" + "x" * 1000}, "path", "shorten"),
        ({"team": {"alice": "pi"}}, "team", "list"),
        ({"team": ["alice"]}, "team", "username, name and role"),
        ({"team": [{"user": "alice"}]}, "team", "username, name and role"),
        ({"team": [{"username": "Alice Sample"}]}, "team", "user name"),
        ({"team": [{"username": 5}]}, "team", "user name"),
        ({"team": [{"username": "alice", "name": 5}]}, "team", "plain name"),
        ({"team": [{"username": "alice", "role": "boss"}]}, "team", "pi, member, local-contact"),
        ({"team": [{"username": "alice", "role": ["pi"]}]}, "team", "pi, member, local-contact"),
        ({"team": [{"username": "alice"}, {"username": "alice"}]}, "team", "more than once"),
        ({"team": "alice:Alice:boss"}, "team", "pi, member, local-contact"),
        ({"is_sample": "perhaps"}, "is_sample", "true or false"),
        ({"is_sample": []}, "is_sample", "true or false"),
        ({"embargo": "x"}, "embargo", "known are"),
    ],
)
def test_an_error_names_file_row_column_and_remedy(read: Read, changes: dict[str, Any], column: str, why: str) -> None:
    with pytest.raises(Refused) as caught:
        read([{**ROW, "id": "1"}, {**ROW, "id": "2"}, {**ROW, **changes}])
    sentence = caught.value.sentence
    assert "catalogue.json, entry 3" in sentence
    assert f"column '{column}'" in sentence
    assert why in sentence
    assert "Correct the file; the catalogue stays as it was." in sentence
    assert len(sentence) < 500


def test_an_id_is_used_once(read: Read) -> None:
    with pytest.raises(Refused, match="entry 2, column 'id': it is the same as in entry 1"):
        read([ROW, ROW])


def test_lines_of_a_csv_are_counted_as_an_editor_does(read: Read) -> None:
    head = "id,proposal,title,instrument,start\n"
    with pytest.raises(Refused, match=r"line 4, column 'start'"):
        read(f"{head}1,1,t,P03,\n2,2,t,P03,\n3,3,t,P03,soon\n", "a.csv")
    with pytest.raises(Refused, match="line 3: it has more columns"):
        read("id,proposal,title,instrument\n1,1,t,P03\n2,2,a, b,P03\n", "a.csv")


@pytest.mark.parametrize(
    ("content", "name", "why"),
    [
        ("{}", "a.json", "list of experiments"),
        ("[1]", "a.json", "entry 1: it is not an object"),
        ("[{]", "a.json", "is not JSON"),
        ("[" * 100_000, "a.json", "is not JSON"),
        ("", "a.json", "is not JSON"),
        ("", "a.csv", "no column id, proposal, title, instrument"),
        ("id;proposal;title;instrument\n1;1;t;P03\n", "a.csv", "Separate columns with commas"),
        ('id,proposal,title,instrument\n"1,1,t,P03\n', "a.csv", "is not CSV"),
        ('id,proposal,title,instrument\n"1"x,1,t,P03\n', "a.csv", "is not CSV"),
        ("id,proposal,title,instrument\n1,1,Köln,P03\n".encode("latin-1"), "a.csv", "Save it as UTF-8"),
    ],
)
def test_a_file_that_is_something_else(read: Read, content: object, name: str, why: str) -> None:
    with pytest.raises(Refused) as caught:
        read(content, name)
    assert why in caught.value.sentence
    assert name in caught.value.sentence


@pytest.mark.parametrize("path", ["", "/nonexistent/catalogue.json", "/", "a\0b"])
def test_a_file_that_cannot_be_read_is_tried_again_later(path: str) -> None:
    with pytest.raises(Unavailable, match=r"FilesSource\.path"):
        list(FilesSource(path=path).experiments())


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)
columns = st.sampled_from([*FULL, "team", "is_sample"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(columns, anything, max_size=5), st.lists(anything, max_size=2))
def test_whatever_a_file_holds_is_read_or_refused(read: Read, changes: dict[str, Any], others: list[Any]) -> None:
    try:
        found = read([*others, {**ROW, **changes}])
    except VisahubError as error:
        assert "catalogue.json" in error.sentence
    else:
        assert all(isinstance(one, Experiment) for one in found)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=300) | st.binary(max_size=300))
def test_whatever_a_csv_holds_is_read_or_refused(read: Read, content: str | bytes) -> None:
    head = "id,proposal,title,instrument,team\n"
    whole = head + content if isinstance(content, str) else head.encode() + content
    try:
        read(whole.encode("utf-8", "surrogatepass") if isinstance(whole, str) else whole, "a.csv")
    except VisahubError as error:
        assert "a.csv" in error.sentence
