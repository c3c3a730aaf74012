"""The Hub's log without secrets: `configure(c)` puts one filter before every handler that the configuration names."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

from traitlets.config import Config
from traitlets.config.loader import LazyConfigValue

from ..model.logline import NoSecrets, secrets_of

_NAME = "visahub"


def protect(c: Config) -> None:
    """Sets `JupyterHub.logging_config`, with what the facility has set there: its handlers are filtered, too."""
    quiet = NoSecrets(secrets_of(os.environ) | secrets_of(c))
    given = {**_given(c.Application, {}), **_given(c.JupyterHub, {})}
    handlers: Mapping[str, Any] = {"console": {}, **given.get("handlers", {})}
    c.JupyterHub.logging_config = {
        **given,
        "filters": {**given.get("filters", {}), _NAME: {"()": quiet.itself}},
        "handlers": {name: {**one, "filters": [*one.get("filters", []), _NAME]} for name, one in handlers.items()},
    }
    # It writes what no other handler takes: warnings of libraries that JupyterHub knows nothing of.
    if logging.lastResort is not None:
        logging.lastResort.addFilter(quiet)


def _given(section: Config, default: dict[str, Any]) -> dict[str, Any]:
    value = section.get("logging_config", default)
    return dict(value.get_value(default) if isinstance(value, LazyConfigValue) else value)
