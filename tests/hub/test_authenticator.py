"""The sample login: accounts get their uid, guesses are slowed down."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
from tornado import web

from tests.services.hub import USER_PASSWORD
from visahub.hub.authenticator import Throttle, passwords
from visahub.model.account import Role

from .conftest import Asking


def sign_in(asking: Asking, username: str, password: str) -> httpx.Response:
    with httpx.Client(base_url=asking.hub.url, timeout=30) as session:
        session.get("/hub/login")
        data = {"username": username, "password": password}
        return session.post("/hub/login", params={"_xsrf": session.cookies["_xsrf"]}, data=data)


def test_a_login_makes_the_account(asking: Asking) -> None:
    asking.hub.login("carla").close()
    account = asking.store.accounts.named("carla")
    assert account.roles == {Role.STAFF}
    assert account.uid >= 20000
    asking.hub.login("carla").close()
    assert asking.store.accounts.named("carla") == account


def test_who_may_not_enter(asking: Asking) -> None:
    for username, password in (("alice", "wrong"), ("nobody", USER_PASSWORD), ("root-admin", USER_PASSWORD), ("", "")):
        response = sign_in(asking, username, password)
        assert response.status_code in {200, 403}
        assert "Invalid username or password" in response.text
    assert asking.store.accounts.named("nobody") is None


def test_long_and_strange_names(asking: Asking) -> None:
    for username in ("a" * 100_000, "alice\x00", "../alice", "<script>alert(1)</script>", "ALICE "):
        response = sign_in(asking, username, "wrong")
        assert response.status_code in {200, 400, 403}
        assert "<script>alert(1)" not in response.text


def test_guesses_are_slowed_down(asking: Asking) -> None:
    for _ in range(Throttle.most_by_name):
        sign_in(asking, "bob", "wrong")
    response = sign_in(asking, "bob", USER_PASSWORD)
    assert response.status_code == 429
    assert "There were too many failed logins. Wait 5 minutes" in response.text
    # Others are not held up.
    asking.hub.login("alice").close()


def test_the_throttle_forgets_in_time_and_is_bounded() -> None:
    now = [0.0]
    throttle = Throttle(lambda: now[0])
    for _ in range(throttle.most_by_name):
        throttle.check("a", "1")
        throttle.count("a", "1")
    with pytest.raises(web.HTTPError):
        throttle.check("a", "2")
    now[0] += throttle.seconds + 1
    throttle.check("a", "2")
    for number in range(30_000):
        throttle.count(str(number), str(number))
    assert len(throttle._failures) <= 10_000


def test_an_address_that_tries_many_names_waits() -> None:
    throttle = Throttle(lambda: 0.0)
    for number in range(throttle.most_by_address):
        throttle.count(str(number), "1")
    with pytest.raises(web.HTTPError):
        throttle.check("new", "1")
    throttle.check("new", "2")


def test_passwords_are_made_once_and_private(tmp_path: Path) -> None:
    file = tmp_path / "state" / "passwords.json"
    made = passwords(file)
    assert passwords(file) == made == json.loads(file.read_text())
    assert file.stat().st_mode & 0o077 == 0
    assert len(made["user"]) >= 8
    assert len(made["admin"]) >= 32
