"""Tokens of instances are sealed for our database, which more programs may read than the Hub."""

from __future__ import annotations

from visahub.hub.tokens import seal, unseal

SECRET, OTHER = b"x" * 32, b"y" * 32


def test_only_the_hub_reads_them() -> None:
    sealed = seal("sesame", SECRET)
    assert "sesame" not in sealed
    assert unseal(sealed, SECRET) == "sesame"
    # Two seals of one token tell nothing of each other.
    assert seal("sesame", SECRET) != sealed


def test_f25_lost_cookie_secret_loses_no_more_than_this() -> None:
    assert unseal(seal("sesame", SECRET), OTHER) == ""
    assert unseal("no seal at all", SECRET) == ""
