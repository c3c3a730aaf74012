"""What a line of a log may say: no secret, no second line of somebody's making, no megabyte; used by every process."""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Iterable, Mapping

MASK = "[secret]"
LONGEST = 900
# Shorter values would be found in innocent words.
_SHORTEST = 8
_MOST = 100_000

# "=" and "&" as they are, and percent-encoded once or more often: an address inside an address.
_IS, _AND = r"(?:=|%(?:25){0,9}3D)", r"(?:&|%(?:25){0,9}26)"
_VALUE = rf"(?:\[secret\]|(?:(?!{_AND})[^\s\"'<>#;,)\]}}])+)"
# Every repetition of a name has a limit: what a stranger sends is searched in linear time.
_NAME = r"(?:token|password|passwd|secret|api_?key|crypt_?key|cookie|session_?id|_xsrf)[\w.-]{0,40}"
# These mean a secret only as the parameter of an address.
_PARAMETER = rf"(?:\?|%(?:25){{0,9}}3F|{_AND})[\w.-]{{0,40}}?(?:code|state|key|auth|signature|sig)"
_QUOTED = r"([\"'])(?:(?!\2)[^\\\n]|\\.)*\2"
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), replacement)
    for pattern, replacement in (
        # The header's whole line: a cookie may be named anything.
        (r"((?:set-)?cookie[\"']?:\s*)\S[^\n]*", rf"\1{MASK}"),
        (rf"({_NAME}{_IS}){_VALUE}", rf"\1{MASK}"),
        (rf"({_PARAMETER}{_IS}){_VALUE}", rf"\1{MASK}"),
        # As Python and JSON write a mapping, and as Python writes arguments.
        (rf"({_NAME}[\"']: b?){_QUOTED}", rf"\1\2{MASK}\2"),
        (rf"({_NAME}=b?){_QUOTED}", rf"\1\2{MASK}\2"),
        # The grants of a login, as oauthlib tells them at DEBUG.
        (r"([\"'](?:code|state)[\"']: )([\"'])[\w.~+/=-]{16,}\2", rf"\1\2{MASK}\2"),
        # As an Authorization header has them.
        (r"\b(token|bearer|basic)(\s+)(?=\S*\d)[\w.~+/=-]{16,}", rf"\1\2{MASK}"),
        (r"(://[^\s/:@\"']*:)[^\s/@\"']+@", rf"\1{MASK}@"),
        # The session's id stands in what JupyterHub says about the tokens of its forms.
        (r"(xsrf (?:cookie for|id mismatch) |(?<= != ))b([\"'])[^\"']*\2", rf"\1{MASK}"),
        (r"(/api/authorizations/(?:cookie|token)/)[^\s\"']+", rf"\1{MASK}"),
    )
)
_URL_PASSWORD = re.compile(r"://[^\s/:@]*:([^\s/@]+)@")
_SECRET_NAME = re.compile(r"(?i)(?:token|password|secret|(?:^|_)keys?)$")
# Control characters and those that turn the direction of writing; a line break only begins an indented line.
_STRANGE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\u200e\u200f]")


def masked(text: str, known: Iterable[str] = ()) -> str:
    """Gives a text without the secrets that it names, and without the known ones wherever they stand."""
    for secret in known:
        text = text.replace(secret, MASK)
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def tidy(text: str) -> str:
    """Gives a text that cannot pretend to be another record: strange characters escaped, lines indented and cut."""
    lines = _STRANGE.sub(lambda found: ascii(found[0])[1:-1], text.expandtabs(4)).split("\n")
    return "\n    ".join(
        line if len(line) <= LONGEST else f"{line[:LONGEST]}... ({len(line)} characters)" for line in lines
    )


class NoSecrets(logging.Filter):
    """Lets every record pass, masked and tidy. Added to a handler, it sees what comes from any library."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        super().__init__()
        self._known = tuple(sorted(known, key=len, reverse=True))

    def itself(self) -> NoSecrets:
        """Gives this filter: what `logging.config` calls to make one."""
        return self

    def filter(self, record: logging.LogRecord) -> bool:
        if "visahub_masked" in record.__dict__:
            return True
        record.__dict__["visahub_masked"] = True
        record.msg, record.args = self._clean(_message(record)), None
        # Formatters take a traceback that is there already.
        if record.exc_info and record.exc_info[0] is not None and not record.exc_text:
            record.exc_text = "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
        if record.exc_text:
            record.exc_text = self._clean(record.exc_text)
        return True

    def _clean(self, text: str) -> str:
        # A cut secret would not be known any more, so that masking comes first; but not over megabytes.
        return tidy(masked(text[:_MOST], self._known))


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception as error:
        # As the logging module itself does: a wrong format must not end what wanted to log.
        return f"{record.msg!r} could not be written: {type(error).__name__}"


def secrets_of(settings: object, name: str = "") -> set[str]:
    """Gives the values in an environment or a configuration whose names say that they are secret, however deep."""
    if isinstance(settings, Mapping):
        return set().union(*(secrets_of(value, str(key)) for key, value in settings.items()))
    if isinstance(settings, list | tuple | set):
        return set().union(*(secrets_of(value, name) for value in settings))
    found: set[str] = set()
    if isinstance(settings, str):
        found.update(match[1] for match in _URL_PASSWORD.finditer(settings))
    # A secret's file is no secret.
    if _SECRET_NAME.search(name) and isinstance(settings, str) and not settings.startswith("/"):
        found.update(settings.split(";"))
    if _SECRET_NAME.search(name) and isinstance(settings, bytes):
        found.add(settings.hex())
    return {one for one in found if len(one) >= _SHORTEST}
