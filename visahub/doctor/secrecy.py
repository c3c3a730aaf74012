"""Secrets: there where they are needed, long enough, and closed to others."""

from __future__ import annotations

import base64
import binascii
import os
from pathlib import Path

from .. import addresses, proxy
from .findings import SECRETS, Answer, Check, Grade, Site

_SHORTEST_TOKEN = 32
_NEW = "openssl rand -hex 32"


def _secret_files(site: Site) -> Answer:
    databases = (
        site.file_of("Visahub", "database_url", "sqlite:///visahub.sqlite"),
        site.file_of("JupyterHub", "db_url", "sqlite:///jupyterhub.sqlite"),
    )
    files = [file for file in databases if file is not None]
    files.append(Path(site.setting("JupyterHub", "cookie_secret_file", "jupyterhub_cookie_secret")))
    files += [site.file.resolve().parent / name for name in (*SECRETS, "pgpass")]
    if "VISAHUB_STATE" in os.environ:
        files.append(Path(os.environ["VISAHUB_STATE"]) / "passwords.json")
    open_files = [
        file for file in files if file.exists() and file.stat().st_mode & 0o077 and not _is_closed(file.parent)
    ]
    if open_files:
        return Grade.PROBLEM, f"Others may read {open_files[0]}. Run: chmod 600 {open_files[0]}"
    return Grade.OK, "Databases and secrets are closed to others."


def _is_closed(folder: Path) -> bool:
    return not folder.stat().st_mode & 0o077


def _token_of_the_portal(site: Site) -> Answer:
    token = os.environ.get("VISAHUB_PORTAL_TOKEN", "")
    if not token:
        return Grade.WARNING, (
            "The portal is started by the Hub and is away while the Hub restarts. In production make it a unit of its "
            "own and give both the same VISAHUB_PORTAL_TOKEN (docs/operations.md)."
        )
    if len(token) < _SHORTEST_TOKEN:
        return Grade.PROBLEM, f"VISAHUB_PORTAL_TOKEN is short enough to be guessed. Make a new one: {_NEW}"
    return Grade.OK, "The portal is a unit of its own."


def _token_of_the_proxy(site: Site) -> Answer:
    if not site.is_proxy_elsewhere:
        return Grade.SKIPPED, "The Hub starts the proxy and makes their token."
    if "proxy_class" in site.config.JupyterHub:
        return Grade.SKIPPED, "The proxy is another program than visahub's."
    try:
        token = proxy.token(site.config)
    except proxy.NoProxy as error:
        return Grade.PROBLEM, f"{error} Make one: {_NEW}"
    if len(token) < _SHORTEST_TOKEN:
        return Grade.PROBLEM, f"{proxy.TOKEN} is short enough to be guessed. Make a new one: {_NEW}"
    return Grade.OK, "Hub and proxy have a token."


def _key_of_the_logins(site: Site) -> Answer:
    keeps = [section for section, settings in site.config.items() if settings.get("enable_auth_state", False)]
    given = os.environ.get("JUPYTERHUB_CRYPT_KEY", "")
    if keeps and not given and not addresses.setting(site.config, "CryptKeeper", "keys"):
        return Grade.PROBLEM, (
            f"{keeps[0]}.enable_auth_state needs JUPYTERHUB_CRYPT_KEY, without which the Hub does not start. Make one: "
            f'echo "JUPYTERHUB_CRYPT_KEY=$({_NEW})" > /etc/visahub/hub.env, and keep a copy apart from the backups.'
        )
    if any(not _is_key(key) for key in given.split(";") if key.strip()):
        return Grade.PROBLEM, f"JUPYTERHUB_CRYPT_KEY must be 32 bytes as 64 hexadecimal digits. Make a new one: {_NEW}"
    return Grade.OK, "What the Hub keeps of logins is encrypted." if keeps else "The Hub keeps nothing of logins."


def _is_key(text: str) -> bool:
    """Tells whether the Hub takes it for a key: 32 bytes as they are, in hexadecimal digits or in base64."""
    try:
        return len(text) == 32 or (len(text) == 64 and len(bytes.fromhex(text)) == 32) or _is_base64(text)
    except ValueError:
        return False


def _is_base64(text: str) -> bool:
    try:
        return len(text) == 44 and len(base64.urlsafe_b64decode(text)) == 32
    except binascii.Error:
        return False


CHECKS: tuple[Check, ...] = (_secret_files, _token_of_the_portal, _token_of_the_proxy, _key_of_the_logins)
