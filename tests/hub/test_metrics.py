"""What Prometheus is told: real answers of Hub and portal, the table of docs, the board and the alerts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client import REGISTRY, Metric
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families

from tests.services.hub import running, wait_until
from visahub.flows.reconcile import Action, Report
from visahub.hub import metrics as hub_metrics
from visahub.model.instance import new_instance_id
from visahub.portal import metrics as portal_metrics

from .conftest import OTHERS, OWN, Asking, choices

pytestmark = pytest.mark.services

ROOT = Path(__file__).parents[2]
BOARD = ROOT / "share" / "grafana" / "visahub.json"
ALERTS = ROOT / "share" / "grafana" / "alerts.yaml"
PAGE = ROOT / "docs" / "monitoring.md"
UNITS = {"s", "bytes", "short", "reqps"}


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asking]:
    with running(tmp_path_factory.mktemp("hub"), with_portal=True) as hub:
        made = Asking(hub)
        made.experiments(OWN, OTHERS)
        wait_until(hub.has_portal, "the portal answers")
        yield made
        made.store.close()


def told(asking: Asking, path: str) -> dict[str, Metric]:
    """Gives what an address tells, by the name of the metric; fails when Prometheus could not read it."""
    answer = httpx.get(f"{asking.hub.url}{path}", headers={"Authorization": f"token {asking.hub.admin_token}"})
    assert answer.status_code == 200, answer.text
    return {family.name: family for family in text_string_to_metric_families(answer.text)}


def of_hub(asking: Asking) -> dict[str, Metric]:
    return told(asking, "/hub/metrics")


def of_portal(asking: Asking) -> dict[str, Metric]:
    return told(asking, "/services/visahub/metrics")


def value(families: dict[str, Metric], sample: str, **labels: str) -> float:
    """Gives the sum of all samples with this name and these labels."""
    found = [one for family in families.values() for one in family.samples if one.name == sample]
    return sum(one.value for one in found if labels.items() <= one.labels.items())


def own(module: Any) -> list[MetricWrapperBase]:
    return sorted(
        {one for one in vars(module).values() if isinstance(one, MetricWrapperBase)}, key=lambda one: one._name
    )


def queries() -> list[str]:
    board, alerts = json.loads(BOARD.read_text()), yaml.safe_load(ALERTS.read_text())
    found = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    return found + [rule["expr"] for group in alerts["groups"] for rule in group["rules"]]


def test_what_happens_is_counted(asking: Asking) -> None:
    before, portal_before = of_hub(asking), of_portal(asking)
    asking.started()
    (asking.home() / "fail").touch()
    asking.start(new_instance_id(), choices())
    assert asking.start(new_instance_id(), choices(experiments=["nothing"])).status_code == 422
    with httpx.Client(base_url=asking.hub.url) as guesser:
        guesser.get("/hub/login")
        wrong = {"username": "bob", "password": "wrong"}
        guesser.post("/hub/login", params={"_xsrf": guesser.cookies["_xsrf"]}, data=wrong)
    token = {"Authorization": f"token {asking.token('alice')}"}
    assert httpx.get(f"{asking.hub.url}/services/visahub/api/experiments", headers=token).status_code == 200
    assert httpx.get(f"{asking.hub.url}/services/visahub/api/experiments?x=1", headers=token).status_code == 422

    def rose(sample: str, **labels: str) -> bool:
        return value(of_hub(asking), sample, **labels) > value(before, sample, **labels)

    def rose_in_portal(sample: str, **labels: str) -> bool:
        return value(of_portal(asking), sample, **labels) > value(portal_before, sample, **labels)

    wait_until(lambda: rose("visahub_starts_total", backend="local", outcome="failed"), "the failure is counted")
    assert rose("visahub_starts_total", backend="local", outcome="ready")
    assert rose("visahub_start_duration_seconds_count", backend="local")
    assert rose("visahub_start_step_duration_seconds_count", backend="local", step="process")
    assert rose("visahub_refusals_total", rule="unknown-experiment")
    assert rose("visahub_logins_total", outcome="failed")
    assert rose("visahub_database_question_duration_seconds_count", outcome="answered")
    wait_until(lambda: rose("visahub_round_duration_seconds_count"), "a round is counted")
    assert value(of_hub(asking), "visahub_backend_up", backend="local") == 1
    assert value(of_portal(asking), "visahub_rounds_total", outcome="done") > 0
    assert rose_in_portal("visahub_search_duration_seconds_count")
    assert rose_in_portal("visahub_refusals_total", rule="unknown-parameter")
    portal = of_portal(asking)
    assert value(portal, "visahub_database_up") == 1
    assert value(portal, "visahub_experiments", source="tests") == 2
    assert value(portal, "visahub_instances", backend="local", phase="ready") >= 1
    assert value(portal, "process_resident_memory_bytes") > 10**6


def test_a_place_that_is_away_is_told(asking: Asking) -> None:
    away = asking.hub.state / "away"
    away.touch()
    try:
        wait_until(lambda: value(of_hub(asking), "visahub_backend_up", backend="local") == 0, "it is told")
        assert value(of_hub(asking), "visahub_look_failures_total", backend="local") > 0
    finally:
        away.unlink()
    wait_until(lambda: value(of_hub(asking), "visahub_backend_up", backend="local") == 1, "it is back")


def test_what_a_round_found_is_told() -> None:
    hub_metrics.round_done(
        Report(unknown=["a", "b"], done=[("i1", Action.LOST)], unavailable=["far"], seconds={"far": 2.0})
    )
    assert REGISTRY.get_sample_value("visahub_unknown_strays") == 2
    assert REGISTRY.get_sample_value("visahub_round_actions_total", {"action": "lost"}) == 1
    assert REGISTRY.get_sample_value("visahub_backend_up", {"backend": "far"}) == 0
    assert REGISTRY.get_sample_value("visahub_look_failures_total", {"backend": "far"}) == 1
    hub_metrics.round_done(Report())
    assert REGISTRY.get_sample_value("visahub_unknown_strays") == 0


def test_each_metric_has_help_and_a_name_with_its_unit(asking: Asking) -> None:
    for families in (of_hub(asking), of_portal(asking)):
        ours = {name: family for name, family in families.items() if name.startswith("visahub_")}
        assert len(ours) > 8
        for name, family in ours.items():
            assert family.documentation.endswith("."), name
            assert re.fullmatch(r"[a-z_]+", name), name
            if family.type == "histogram":
                assert name.endswith("_seconds"), name
            if family.type == "counter":
                assert all(one.name.endswith(("_total", "_created")) for one in family.samples), name


def test_the_board_and_the_alerts_ask_for_what_there_is(asking: Asking) -> None:
    there = {one.name for families in (of_hub(asking), of_portal(asking)) for one in families.values()}
    for query in queries():
        names = re.findall(r"\b(?:visahub|jupyterhub|process)_[a-z0-9_]+", query)
        assert names, query
        for name in names:
            stem = re.sub(r"_(total|bucket|count|sum)$", "", name)
            assert {name, stem} & there, f"{name} is nowhere, in {query}"
        assert query.count("(") == query.count(")"), query


def test_every_panel_has_a_unit_and_says_what_it_shows() -> None:
    panels = json.loads(BOARD.read_text())["panels"]
    assert len(panels) > 15
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        unit = panel["fieldConfig"]["defaults"]["unit"]
        assert unit in UNITS, panel["title"]
        assert panel["description"].endswith("?") or panel["description"].endswith("."), panel["title"]
        # Seconds are shown as seconds, bytes as bytes.
        first = panel["targets"][0]["expr"]
        assert ("_seconds" in first and "_count[" not in first) == (unit == "s"), panel["title"]
        assert ("_bytes" in first) == (unit == "bytes"), panel["title"]
    shown = " ".join(queries())
    missing = [one._name for module in (hub_metrics, portal_metrics) for one in own(module) if one._name not in shown]
    assert missing == [], "every metric of ours has a place on the board"


def test_the_page_lists_every_metric() -> None:
    rows = []
    for where, module in (("Hub", hub_metrics), ("portal", portal_metrics)):
        for one in own(module):
            name = f"{one._name}_total" if one._type == "counter" else one._name
            labels = ", ".join(one._labelnames)
            rows.append(f"| `{name}` | {where} | {one._type} | {labels} | {one._documentation} |")
    page = PAGE.read_text()
    missing = [row for row in rows if row not in page]
    assert missing == [], "Put these rows into docs/monitoring.md:\n" + "\n".join(missing)
    assert len(re.findall(r"^\| `visahub_", page, re.M)) == len(rows), "the page lists what there is no more"
