"""Starts JupyterLab inside an instance, fast: `python -m visahub.singleuser.launcher`, run by a backend.

Three things make a plain start slow: a grammar that `rfc3987_syntax` compiles at import (1 s), `node` that
`jupyterlab.labapp` runs at import (0.4 s), and the garbage collector while 1300 modules are imported (0.2 s).
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from visahub.model.logline import NoSecrets, secrets_of

from . import start

# A unix socket's path has at most 107 bytes; ipc kernels add "/kernel-<uuid>-ipc-<n>" to the runtime directory.
_LONGEST_RUNTIME = 107 - len("/kernel-00000000-0000-0000-0000-000000000000-ipc-10000")
CONFIG = Path(__file__).with_name("jupyter")
# For how long a revoked login still opens this server.
_LOGIN_CACHE_SECONDS = 10


def main() -> None:
    """Runs the single-user server until it is stopped."""
    home = Path(os.environ.get("HOME") or Path.home())
    os.chdir(home)
    prepare(os.environ, home)
    run = _import_fast()
    run(arguments(os.environ, home))


def prepare(environ: os._Environ[str] | dict[str, str], home: Path) -> None:
    """Completes the environment that JupyterLab and its kernels inherit."""
    # The facility's choices: no extension manager, no news, no command linker; and our server extension.
    environ["JUPYTER_CONFIG_PATH"] = os.pathsep.join(
        part for part in (str(CONFIG), environ.get("JUPYTER_CONFIG_PATH", "")) if part
    )
    # A workspace remembers open tabs with their whole address: one instance's desktop is not another's.
    if environ.get("VISAHUB_INSTANCE") and "JUPYTERLAB_WORKSPACES_DIR" not in environ:
        folder = home / ".local" / "share" / "visahub" / "workspaces" / environ["VISAHUB_INSTANCE"]
        environ["JUPYTERLAB_WORKSPACES_DIR"] = str(folder)
    # Kernel connections belong beside the other sockets, not on a network file system.
    if environ.get("VISAHUB_RUNTIME") and "JUPYTER_RUNTIME_DIR" not in environ:
        runtime = os.path.join(environ["VISAHUB_RUNTIME"], "jupyter")
        if len(os.fsencode(runtime)) <= _LONGEST_RUNTIME:
            os.makedirs(runtime, mode=0o700, exist_ok=True)
            environ["JUPYTER_RUNTIME_DIR"] = runtime


def arguments(environ: Mapping[str, str], home: Path) -> list[str]:
    """Gives the server's settings. They stay inside this process: nothing of them is in `ps`, and none is a secret."""
    given = [
        f"--ServerApp.root_dir={home}",
        f"--ServerApp.default_url=/{start.ADDRESS}",
        f"--HubOAuth.cache_max_age={_LOGIN_CACHE_SECONDS}",
    ]
    if os.geteuid() == 0:
        # Whose account an instance runs in is the backend's decision; in a container that may be root.
        given.append("--ServerApp.allow_root=True")
    socket = socket_path(environ)
    if socket:
        given += [f"--ServerApp.sock={socket}", "--ServerApp.sock_mode=0600"]
    # TCP ports of kernels can be reached by every user of the machine; ipc sockets lie in a private directory.
    if len(os.fsencode(_runtime_dir(environ, home))) <= _LONGEST_RUNTIME:
        given.append("--KernelManager.transport=ipc")
    return given


def log_filter() -> NoSecrets:
    """Keeps secrets out of the server's log; `jupyter/jupyter_server_config.json` names it."""
    return NoSecrets(secrets_of(os.environ))


def socket_path(environ: Mapping[str, str]) -> str:
    """Gives the unix socket that JUPYTERHUB_SERVICE_URL names (http+unix://%2Fpath), '' for a TCP address."""
    url = urlsplit(environ.get("JUPYTERHUB_SERVICE_URL", ""))
    return unquote(url.netloc) if url.scheme == "http+unix" else ""


def _runtime_dir(environ: Mapping[str, str], home: Path) -> str:
    given = environ.get("JUPYTER_RUNTIME_DIR")
    return given or str(home / ".local" / "share" / "jupyter" / "runtime")


def _import_fast() -> Callable[[list[str]], None]:
    """Imports the server without the three slow things; everything else behaves as always."""
    gc.disable()
    # jsonschema then skips the formats iri and iri-reference, which no schema of Jupyter uses.
    sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]
    path = os.environ.get("PATH", "")
    os.environ["PATH"] = _without_node(path)
    try:
        singleuser = importlib.import_module("jupyterhub.singleuser")
        with contextlib.suppress(ImportError):
            importlib.import_module("jupyterlab.labapp")
    finally:
        # Kernels and terminals keep the user's own PATH.
        os.environ["PATH"] = path
    gc.freeze()
    gc.enable()
    run: Callable[[list[str]], None] = singleuser.main
    return run


def _without_node(path: str) -> str:
    kept = [part for part in path.split(os.pathsep) if part and not os.access(os.path.join(part, "node"), os.X_OK)]
    # An empty PATH would mean the working directory.
    return os.pathsep.join(kept) or "/nonexistent"


if __name__ == "__main__":
    main()
