"""What the portal's /metrics tells, for Prometheus; counted by the other modules of `portal/`."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Gauge, Histogram, ProcessCollector
from prometheus_client import Counter as Total

from ..store import asking

REGISTRY = CollectorRegistry()
# Memory, processor time and open files of the portal's process.
ProcessCollector(registry=REGISTRY)

REQUESTS = Histogram(
    "visahub_request_duration_seconds",
    "How long requests to the portal took, by handler, method and status; streams are not counted.",
    ["handler", "method", "status"],
    registry=REGISTRY,
)
REFUSALS = Total("visahub_refusals", "What was refused, by the rule that refused it.", ["rule"], registry=REGISTRY)
QUESTIONS = Histogram(
    "visahub_database_question_duration_seconds",
    "How long questions to visahub's database took, by whether an answer came in time.",
    ["outcome"],
    registry=REGISTRY,
)
INSTANCES = Gauge(
    "visahub_instances", "Instances that are not deleted, by place and phase.", ["backend", "phase"], registry=REGISTRY
)
DATABASE_UP = Gauge(
    "visahub_database_up", "Whether visahub's database answered this very question: 1 or 0.", registry=REGISTRY
)
STREAMS = Gauge("visahub_streams", "Open streams of events: pages that move by themselves.", registry=REGISTRY)
ROUNDS = Total(
    "visahub_rounds",
    "Rounds that the portal's clock asked the Hub for: done or failed.",
    ["outcome"],
    registry=REGISTRY,
)
SEARCHES = Histogram(
    "visahub_search_duration_seconds", "How long searches for experiments took in the database.", registry=REGISTRY
)
MIRRORS = Total(
    "visahub_mirrors", "Readings of a source of experiments: done or failed.", ["source", "outcome"], registry=REGISTRY
)
MIRROR_SECONDS = Histogram(
    "visahub_mirror_duration_seconds",
    "How long a reading of a source took.",
    ["source"],
    buckets=(0.1, 0.5, 1, 5, 10, 30, 60, 300, 1800),
    registry=REGISTRY,
)
MIRRORED = Gauge(
    "visahub_mirror_last_success_timestamp_seconds",
    "When a source was last read whole, in Unix time.",
    ["source"],
    registry=REGISTRY,
)
EXPERIMENTS = Gauge(
    "visahub_experiments", "Experiments in the catalogue that are not withdrawn.", ["source"], registry=REGISTRY
)
FORGOTTEN = Total(
    "visahub_forgotten", "What was removed because its time was over: events or instances.", ["what"], registry=REGISTRY
)

asking.observe(lambda seconds, outcome: QUESTIONS.labels(outcome).observe(seconds))
for _outcome in ("done", "failed"):
    ROUNDS.labels(_outcome)
