"""The round's address: only for the portal, one at a time."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.services.hub import ROOT
from visahub.model.instance import new_instance_id

from .conftest import Asking, choices

pytestmark = pytest.mark.services


def test_only_the_portal_may_ask(asking: Asking) -> None:
    for token in (asking.hub.admin_token, asking.token("alice"), asking.token("root-admin"), "wrong"):
        response = asking.hub.api("POST", "/visahub/round", token=token, body={})
        assert response.status_code == 403, response.text
    assert asking.hub.api("GET", "/visahub/round", token=asking.hub.portal_token).status_code == 405


def test_the_portal_may_ask_for_nothing_else(asking: Asking) -> None:
    asking.token("alice")
    for method, path in (
        ("GET", "/users"),
        ("GET", "/users/alice"),
        ("GET", "/proxy"),
        ("POST", "/users/alice/tokens"),
    ):
        assert asking.hub.api(method, path, token=asking.hub.portal_token).status_code in {403, 404}, path


def test_two_rounds_at_once(asking: Asking) -> None:
    with ThreadPoolExecutor(8) as pool:
        jobs = [
            pool.submit(asking.hub.api, "POST", "/visahub/round", token=asking.hub.portal_token, body={})
            for _ in range(8)
        ]
    assert {job.result().status_code for job in jobs} <= {200, 409}


def test_a_round_saves_what_is_free(asking: Asking) -> None:
    asking.hub.round()
    offers = asking.store.offers.all()
    assert set(offers) == {"small", "large"}


def test_records_of_servers_that_were_never_admitted_go(asking: Asking) -> None:
    server = new_instance_id()
    assert asking.ask("PUT", server, {"display_name": server, "user_options": choices()}).status_code == 201
    assert asking.hub.server("alice", server) is not None
    asking.hub.round()
    asking.hub.round()
    assert asking.hub.server("alice", server) is None


def test_records_of_stopped_instances_stay(asking: Asking) -> None:
    server = asking.started()
    asking.ask("DELETE", server)
    for _ in range(3):
        asking.hub.round()
    assert asking.hub.server("alice", server) is not None


def test_a_hub_with_another_spawner_stays_as_it_is() -> None:
    """A Hub imports all spawners that are installed, only to list their names."""
    code = """
from jupyterhub import apihandlers, handlers
from jupyterhub.handlers.base import BaseHandler
before = list(apihandlers.default_handlers), list(handlers.default_handlers), BaseHandler.prepare
import visahub.hub.spawner, visahub.hub.authenticator
assert before == (list(apihandlers.default_handlers), list(handlers.default_handlers), BaseHandler.prepare)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
