"""Whatever anybody sends, `StartRequest.read` gives a request that it reads again as the same, or Refused."""

from __future__ import annotations

import json
import unicodedata
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from visahub.model.errors import Refused
from visahub.model.request import (
    KEYBOARDS,
    MAX_EXPERIMENTS,
    MAX_ID,
    MAX_NAME,
    MAX_NOTES,
    MAX_OPTIONS,
    RESOLUTIONS,
    StartRequest,
)

GOOD = {"environment": "analysis", "hardware": "small"}
MANY_BYTES = ["\U00010400" * 150 + str(number) for number in range(20)]
FIELDS = tuple(StartRequest().as_options())
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec=None), max_size=60)
    | st.binary(max_size=20)
)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=5)
)
TEXT = st.text(st.characters(codec=None), max_size=MAX_NAME + 2)
LIKELY = st.fixed_dictionaries(
    {
        "environment": st.sampled_from(["analysis", "a b", ""]) | JSON,
        "hardware": st.sampled_from(["small", "../etc"]) | JSON,
    },
    optional={
        "experiments": st.lists(TEXT | JSON, max_size=MAX_EXPERIMENTS + 2) | JSON,
        "name": TEXT | JSON,
        "notes": TEXT | JSON,
        "resolution": st.sampled_from(RESOLUTIONS) | JSON,
        "keyboard": st.sampled_from(tuple(KEYBOARDS)) | JSON,
    },
)
ANY_KEYS = st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=10) | st.integers() | st.none(), JSON, max_size=9)


def deep(kind: str, depth: int) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = [value] if kind == "list" else {"a": value}
    return value


def judged(raw: object) -> StartRequest | None:
    """Reads; checks that a refusal is short and printable, and that a request is within its limits and stable."""
    try:
        request = StartRequest.read(raw)
    except Refused as refused:
        assert refused.status == 422
        assert refused.rule
        assert 10 < len(refused.sentence) < 400
        assert refused.sentence.isprintable()
        return None
    assert len(request.experiments) <= MAX_EXPERIMENTS
    assert all(1 <= len(key) <= MAX_ID for key in request.experiments)
    assert len(request.name) <= MAX_NAME
    assert len(request.notes) <= MAX_NOTES
    texts = [*request.experiments, request.name, request.environment, request.hardware, request.notes]
    allowed = {"\n", "\t"}
    for text in texts:
        assert not [c for c in text if c not in allowed and unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"}]
    assert "\n" not in request.name
    # What is stored is bounded too, however it is written.
    assert len(json.dumps(request.as_options())) < 3 * MAX_OPTIONS
    assert StartRequest.read(json.loads(json.dumps(request.as_options()))) == request
    return request


@settings(max_examples=200, deadline=None)
@given(JSON | LIKELY | ANY_KEYS)
def test_a_request_or_refused(raw: object) -> None:
    judged(raw)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
@example(b'{"environment":"a","hardware":"b","experiments":["' + b"x" * 300 + b'"]}')
def test_bytes_of_a_body(body: bytes) -> None:
    try:
        raw = json.loads(body)
    except (ValueError, RecursionError):
        return
    judged(raw)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param({"environment": deep("list", 900), "hardware": "small"}, id="deep-list"),
        pytest.param(GOOD | {"experiments": [deep("object", 900)]}, id="deep-object"),
        pytest.param(GOOD | {"notes": deep("list", 100_000)}, id="deeper"),
        pytest.param(GOOD | {"name": 10**6000}, id="huge-number"),
        pytest.param(GOOD | {"experiments": [10**6000]}, id="huge-number-in-a-list"),
        pytest.param({10**6000: 1}, id="huge-number-as-a-name"),
        pytest.param(GOOD | {"environment": "x" * 5_000_000}, id="long"),
        pytest.param({str(number): 1 for number in range(100_000)}, id="many-fields"),
        pytest.param(GOOD | {"experiments": ["x"] * 1_000_000}, id="many-experiments"),
        pytest.param(GOOD | {"notes": "\x00"}, id="nul"),
        pytest.param(GOOD | {"name": "\ud800"}, id="surrogate"),
        pytest.param(GOOD | {"name": "a\u202eb"}, id="right-to-left"),
        pytest.param({"__jupyterhub_bytes__": "eA=="}, id="key-of-the-hub"),
        pytest.param(GOOD | {"experiments": MANY_BYTES, "notes": "\U00010400" * MAX_NOTES}, id="many-bytes"),
    ],
)
def test_x6_deep_and_huge_choices_are_refused(raw: object) -> None:
    assert judged(raw) is None


def test_the_hypotheses_reach_both_answers() -> None:
    assert judged(GOOD | {"name": "näme", "notes": "a\nb"}) is not None
    with pytest.raises(Refused):
        StartRequest.read(GOOD | {"cmd": "id"})
