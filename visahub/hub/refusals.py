"""Turns the errors of the floors below into what the Hub shows; the only place of the Hub where that happens."""

from __future__ import annotations

import logging
import secrets

from jupyterhub.spawner import SpawnException

from ..model.errors import Failed, Refused, Unavailable
from .metrics import REFUSALS


def spoken(error: Exception, log: logging.Logger | logging.LoggerAdapter[logging.Logger]) -> SpawnException:
    """Gives the exception that tells the user an error's sentence through form, page and JSON alike.

    A defect is logged with its traceback under a reference, and the user is told the reference.
    """
    if isinstance(error, Refused):
        REFUSALS.labels(error.rule).inc()
        return _exception(error.sentence, error.rule, error.status)
    if isinstance(error, Unavailable):
        refusal = _exception(error.sentence, "unavailable", 503)
        refusal.headers = {"Retry-After": str(error.retry_seconds)}
        return refusal
    if isinstance(error, Failed):
        # Not 500: nothing is wrong with the Hub, and its page for 500 would hide the sentence.
        return _exception(error.sentence, "failed", 503)
    reference = secrets.token_hex(4)
    log.error("Defect %s", reference, exc_info=error)
    return _exception(
        "Something went wrong inside visahub; nothing of yours was lost. Try again, and if it happens again tell the "
        f"operators the reference {reference}.",
        "defect",
        500,
    )


def _exception(sentence: str, rule: str, status: int) -> SpawnException:
    refusal = SpawnException(sentence, reason=rule, status_code=status)
    # Without it the Hub prints "403 SpawnException(reason=...): ..." instead of the sentence.
    refusal.jupyterhub_message = sentence
    return refusal
