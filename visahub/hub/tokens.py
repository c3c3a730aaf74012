"""The token of an instance, sealed for our database: so that an older copy of the Hub's database can be mended."""

from __future__ import annotations

import base64
import hashlib
import hmac

from cryptography.fernet import Fernet, InvalidToken

_PURPOSE = b"visahub: tokens of running instances"


def seal(token: str, cookie_secret: bytes) -> str:
    """Gives a token that only a Hub with the same cookie secret can read; the portal cannot."""
    return _box(cookie_secret).encrypt(token.encode()).decode()


def unseal(sealed: str, cookie_secret: bytes) -> str:
    """Gives the token back, '' when the cookie secret is another one by now."""
    try:
        return _box(cookie_secret).decrypt(sealed.encode()).decode()
    except InvalidToken:
        return ""


def _box(cookie_secret: bytes) -> Fernet:
    return Fernet(base64.urlsafe_b64encode(hmac.new(cookie_secret, _PURPOSE, hashlib.sha256).digest()))
