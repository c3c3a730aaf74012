"""Lines of a log: secrets in every form in which they have been seen, and texts that want to be more than a text."""

from __future__ import annotations

import io
import logging
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visahub.model.logline import LONGEST, MASK, NoSecrets, masked, secrets_of, tidy

S = "SesameOpen-0123456789"


@pytest.mark.parametrize(
    "line",
    [
        # JupyterHub masks the first and prints the second.
        f"302 GET /hub/accept-share?code={MASK} -> /hub/login?next=%2Fhub%2Faccept-share%3Fcode%3D{S}&x=1 (@::1)",
        f"302 GET /a -> /b?next=%252Fc%253Fx%253D1%2526state%253D{S}%2526y%253D2",
        f"403 GET /services/visahub/api/instances?token={S} (alice@::1) 1.00ms",
        f"404 POST /x?user=a&password={S}&b=c",
        f"GET /x?a=1&_xsrf={S}",
        f"https://example.org/?key={S}#part",
        f"https://example.org/cb?auth_code={S}",
        f"Setting new xsrf cookie for b'{S}:41' {{'path': '/hub/'}}",
        f"xsrf id mismatch b'{S}:1' != b'{S}:2'",
        f"could not connect to postgresql+psycopg://visahub:{S}@db/visahub",
        f"Authorization: token {S}",
        f"Bearer {S} was refused",
        f"Cookie: a={S}; b=c; anything={S}",
        f'{{"Set-Cookie": "x={S}; Path=/"}}',
        f"{{'api_token': '{S}', 'x': 1}}",
        f'{{"password": "a \\" quoted {S}"}}',
        f"Saving grant {{'code': '{S}', 'state': '{S}'}} for x",
        f"Config(auth_token='{S}', port=1)",
        f"JUPYTERHUB_API_TOKEN={S} CONFIGPROXY_AUTH_TOKEN={S}",
        f"GET /hub/api/authorizations/token/{S}",
    ],
)
def test_secrets_are_masked(line: str) -> None:
    assert S not in masked(line)
    assert MASK in masked(line)
    assert masked(masked(line)) == masked(line)


@pytest.mark.parametrize(
    "line",
    [
        "200 GET /services/visahub/new?experiment=p700001&keyboard=de&hardware=small (alice@127.0.0.1) 12.00ms",
        "{'state': 'ready', 'code': '0'} status_code=200 exit code=1 state=ready phase: ready",
        "ireal00001: the token of this instance has ended",
        "Adding route /user/alice/i1 -> http+unix://%2Frun%2Fvisahub%2Fx%2Fs",
    ],
)
def test_other_lines_stay(line: str) -> None:
    assert tidy(masked(line)) == line


def test_known_secrets_go_wherever_they_stand() -> None:
    environ = {"CONFIGPROXY_AUTH_TOKEN": S, "PATH": "/usr/bin", "JUPYTERHUB_CRYPT_KEY": "a" * 64 + ";" + "b" * 64}
    config = {
        "JupyterHub": {
            "services": [{"name": "x", "api_token": "service-secret-1"}],
            "cookie_secret": b"\xab" * 32,
            "ssl_key": "/etc/ssl/key.pem",
            "db_url": "postgresql+psycopg://u:p4ssw0rd@h/db",
        }
    }
    known = secrets_of(environ) | secrets_of(config)
    assert known == {S, "a" * 64, "b" * 64, "service-secret-1", "ab" * 32, "p4ssw0rd"}
    assert written(f"odd place for {S} and p4ssw0rd", known=known) == f"odd place for {MASK} and {MASK}"


def written(message: str, *args: object, known: set[str] | None = None, error: Exception | None = None) -> str:
    """Gives what a handler with the filter writes."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(NoSecrets(known or ()))
    log = logging.Logger("test")
    log.addHandler(handler)
    log.error(message, *args, exc_info=error)
    return stream.getvalue().removesuffix("\n")


def test_traceback_is_masked_too() -> None:
    try:
        raise ValueError(f"https://x/?token={S}")
    except ValueError as error:
        text = written("it broke", error=error)
    assert "Traceback" in text
    assert "ValueError: https://x/?token=[secret]" in text
    assert S not in text


def test_wrong_format_is_told_and_ends_nothing() -> None:
    assert "could not be written: TypeError" in written("%d", "x")


@pytest.mark.parametrize("strange", ["\r", "\x00", "\x1b[2J", "\u202e", "\u2028", "\x85"])
def test_x7_strange_characters_are_shown_as_what_they_are(strange: str) -> None:
    assert tidy(f"a{strange}b").isprintable()


def test_x7_text_cannot_pretend_to_be_a_record() -> None:
    text = written("login of %s", "alice\nINFO 2026-01-01 root logged in")
    assert [line for line in text.splitlines() if not line.startswith("    ")] == ["login of alice"]


def test_long_lines_are_cut_and_their_length_told() -> None:
    text = written("name: %s", "x" * 1_000_000)
    assert len(text) < 1000
    assert text.startswith("name: xxx")
    assert tidy("y" * (LONGEST + 1)).endswith(f"... ({LONGEST + 1} characters)")


@pytest.mark.parametrize(
    "part", ["token", "?code", "%25", "%2526", "cookie", "://a", "'token': '", "\\", "token ", "a" * 41]
)
def test_hostile_text_takes_no_time(part: str) -> None:
    text = part * (100_000 // len(part))
    began = time.process_time()
    masked(text)
    assert time.process_time() - began < 5


@given(st.text(max_size=300))
def test_any_text_can_be_written_and_every_line_but_the_first_is_indented(text: str) -> None:
    first, *others = tidy(masked(text)).split("\n")
    assert not any(unicodedata.category(char) == "Cc" for line in (first, *others) for char in line)
    assert all(line.startswith("    ") for line in others)
