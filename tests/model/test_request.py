"""The one validator behind every door: hostile input is refused with a sentence, nothing else happens."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from visahub.model.errors import Refused
from visahub.model.request import KEYBOARDS, MAX_EXPERIMENTS, MAX_NAME, MAX_NOTES, RESOLUTIONS, StartRequest

FIELDS = ("experiments", "environment", "hardware", "name", "resolution", "keyboard", "notes")
GOOD = {"environment": "python", "hardware": "small"}

keys = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)
plain = st.text(st.characters(exclude_categories=["Cc", "Cf", "Cs", "Zl", "Zp"]), max_size=MAX_NAME)
requests = st.builds(
    StartRequest,
    experiments=st.lists(plain.filter(bool), max_size=MAX_EXPERIMENTS, unique=True).map(tuple),
    environment=keys,
    hardware=keys,
    name=plain.map(lambda text: " ".join(text.split())),
    resolution=st.sampled_from(RESOLUTIONS),
    keyboard=st.sampled_from(sorted(KEYBOARDS)),
    notes=plain.map(str.strip),
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
anything = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.text() | st.integers() | st.none(), inner, max_size=5)
    ),
    max_leaves=20,
)
near_misses = st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=20), anything | plain, max_size=9)


@given(requests)
def test_what_is_written_is_read_back_equal(request: StartRequest) -> None:
    assert StartRequest.read(request.as_options()) == request


@given(anything | near_misses)
@example({**GOOD, "experiments": [["nested"]]})
@example({**GOOD, "experiments": [{}]})
@example({**GOOD, "environment": "python\n"})
@example({**GOOD, "name": "\ud800"})
@example({None: 1, 7: 2, **GOOD})
def test_anything_is_read_or_refused_with_422(raw: object) -> None:
    try:
        request = StartRequest.read(raw)
    except Refused as error:
        assert error.status == 422
        assert error.rule
        assert error.sentence.isprintable()
        assert len(error.sentence) < 500
        error.sentence.encode()
    else:
        assert StartRequest.read(request.as_options()) == request
        assert len(request.name) <= MAX_NAME
        assert len(request.notes) <= MAX_NOTES
        assert len(request.experiments) <= MAX_EXPERIMENTS


def test_only_the_two_keys_are_needed() -> None:
    request = StartRequest.read(GOOD)
    assert request == StartRequest(environment="python", hardware="small")
    assert (request.resolution, request.keyboard, request.experiments) == ("client", "us", ())


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"cmd": "x"}, "unknown-field"),
        ({"__jupyterhub_bytes__": "x"}, "unknown-field"),
        ({"Name": "x"}, "unknown-field"),
        ({"experiments": "p700002"}, "experiments"),
        ({"experiments": {"p700002": 1}}, "experiments"),
        ({"experiments": ["a"] * (MAX_EXPERIMENTS + 1)}, "experiments"),
        ({"experiments": [1]}, "experiments"),
        ({"experiments": [""]}, "experiments"),
        ({"experiments": ["x" * 201]}, "experiments"),
        ({"experiments": ["p7\x00"]}, "experiments"),
        ({"environment": ""}, "environment"),
        ({"environment": None}, "environment"),
        ({"environment": "../etc"}, "environment"),
        ({"environment": "a b"}, "environment"),
        ({"environment": "python\n"}, "environment"),
        ({"environment": "x" * 65}, "environment"),
        ({"hardware": ["small"]}, "hardware"),
        ({"hardware": "small; rm -rf /"}, "hardware"),
        ({"name": "x" * (MAX_NAME + 1)}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "evil\u202egnp.exe"}, "name"),
        ({"name": "a\u2028b"}, "name"),
        ({"name": 5}, "name"),
        ({"notes": "x" * (MAX_NOTES + 1)}, "notes"),
        ({"notes": "a\x1b[31m"}, "notes"),
        ({"notes": True}, "notes"),
        ({"resolution": "1x1"}, "resolution"),
        ({"resolution": ["client"]}, "resolution"),
        ({"keyboard": "us,de"}, "keyboard"),
        ({"keyboard": None}, "keyboard"),
    ],
)
def test_a_wrong_choice_names_its_field(changes: dict[str, object], rule: str) -> None:
    with pytest.raises(Refused) as caught:
        StartRequest.read({**GOOD, **changes})
    assert caught.value.rule == rule
    assert caught.value.status == 422


@pytest.mark.parametrize("raw", [None, [], "environment", 5, [("environment", "python")]])
def test_only_an_object_is_read(raw: object) -> None:
    with pytest.raises(Refused, match="one JSON object"):
        StartRequest.read(raw)


def test_a_hostile_value_is_shown_short_and_harmless() -> None:
    with pytest.raises(Refused) as caught:
        StartRequest.read({"environment": "\x1b\u202e<script>" + "x" * 10**6, "hardware": "small"})
    assert len(caught.value.sentence) < 200
    assert caught.value.sentence.isascii()


def test_lines_of_notes_and_the_order_of_experiments_are_kept() -> None:
    raw = {**GOOD, "notes": " first\r\nsecond\rthird\t. ", "experiments": ["b", "a", "b"], "name": "  My analysis "}
    request = StartRequest.read(raw)
    assert request.notes == "first\nsecond\nthird\t."
    assert request.experiments == ("b", "a")
    assert request.name == "My analysis"


def test_names_of_people_are_welcome() -> None:
    assert StartRequest.read({**GOOD, "name": "Käthes Röntgen 解析 🔬"}).name == "Käthes Röntgen 解析 🔬"
