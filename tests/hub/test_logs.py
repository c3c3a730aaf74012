"""The filter stands before every handler that a facility has set, and takes none of its settings away."""

from __future__ import annotations

from pathlib import Path

from jupyterhub.app import JupyterHub
from traitlets.config import Config

from visahub.hub import logs


def test_handlers_of_the_facility_are_filtered_too(tmp_path: Path) -> None:
    c = Config()
    c.JupyterHub.db_url = "postgresql+psycopg://hub:sesame-open@localhost/hub"
    c.Application.logging_config = {
        "handlers": {"file": {"class": "logging.FileHandler", "filename": str(tmp_path / "own.log"), "level": "DEBUG"}},
        "loggers": {"JupyterHub": {"level": "DEBUG", "handlers": ["console", "file"]}},
    }
    logs.protect(c)
    hub = JupyterHub(config=c)
    try:
        hub.init_logging()
        hub.log.warning("GET /x?token=abc123 with sesame-open")
    finally:
        for handler in list(hub.log.handlers):
            handler.close()
            hub.log.removeHandler(handler)
        JupyterHub.clear_instance()
    assert "GET /x?token=[secret] with [secret]" in (tmp_path / "own.log").read_text()
