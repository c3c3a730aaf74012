"""Inside the Hub's process: `configure(c)` in `jupyterhub_config.py` turns a JupyterHub into a visahub."""

from __future__ import annotations

from typing import Any

from traitlets.config import Config


def configure(c: Config) -> None:
    """Sets what a visahub needs and what is recommended, without changing what the facility has set itself.

    Call it in the last line of `jupyterhub_config.py`: it also checks the settings of visahub, and a wrong one stops
    the Hub with a sentence that names it.
    """
    # Only here, since a process that only reads the configuration needs nothing of the Hub.
    from . import settings

    settings.apply(c)


def __getattr__(name: str) -> Any:
    """Gives `VisaSpawner` and `SampleAuthenticator`; JupyterHub is imported only for those who want them."""
    if name == "VisaSpawner":
        from .spawner import VisaSpawner

        return VisaSpawner
    if name == "SampleAuthenticator":
        from .authenticator import SampleAuthenticator

        return SampleAuthenticator
    raise AttributeError(name)
