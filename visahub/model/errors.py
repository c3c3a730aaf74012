"""The only errors whose text a user reads; raised on floors 1 to 3, turned into HTTP by `hub/` and `portal/`."""

from __future__ import annotations


class VisahubError(Exception):
    """What happened, why, and what to do next, in one or two sentences for the user."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence


class Refused(VisahubError):
    """The rules say no. `rule` names the rule; `status` is the HTTP status that fits (4xx)."""

    def __init__(self, sentence: str, *, rule: str, status: int = 403) -> None:
        super().__init__(sentence)
        self.rule = rule
        self.status = status


class Unavailable(VisahubError):
    """Something did not answer; nothing was changed. Try again after `retry_seconds`."""

    def __init__(self, sentence: str, *, retry_seconds: int = 5) -> None:
        super().__init__(sentence)
        self.retry_seconds = retry_seconds


class Failed(VisahubError):
    """It was tried and did not work. `log` holds the last lines of what the instance itself said, for the details."""

    def __init__(self, sentence: str, *, log: str = "") -> None:
        super().__init__(sentence)
        self.log = log
