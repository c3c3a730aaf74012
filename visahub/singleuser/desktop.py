"""The remote desktop of an instance: the entry of jupyter-server-proxy, its holder, and the daemon's command line.

`python -m visahub.singleuser.desktop` is the daemon; `... hold <socket>` waits beside it for jupyter-server-proxy;
`... stop` ends it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import sys
import time
from pathlib import Path
from typing import Any

from visahub.model.errors import VisahubError

from . import runtime

# jupyter-server-proxy starts a holder again that ended badly, at once.
_PAUSE_SECONDS = 1.0


def entry() -> dict[str, Any]:
    """Describes the desktop to jupyter-server-proxy (entry point `jupyter_serverproxy_servers`)."""
    return {
        "command": [sys.executable, "-m", "visahub.singleuser.desktop", "hold", "{unix_socket}"],
        "unix_socket": True,
        "timeout": 30,
        "launcher_entry": {
            "enabled": True,
            "title": "Desktop",
            "icon_path": str(runtime.share("static", "desktop.svg")),
        },
        "new_browser_tab": False,
        # An open tab is not activity: the daemon counts keys and pointer movements instead.
        "update_last_activity": False,
    }


def hold(link: Path) -> None:
    """Ensures the daemon, points `link` to its pages, waits until the daemon ends, and then ends badly.

    The daemon outlives the Jupyter server, whose child this is. Ending badly makes jupyter-server-proxy start another.
    """
    try:
        found = runtime.find(os.environ)
        pid = runtime.ensure(found, os.environ)
        with contextlib.suppress(FileNotFoundError):
            link.unlink()
        link.symlink_to(found.pages)
        with contextlib.suppress(ProcessLookupError):
            select.select([os.pidfd_open(pid)], [], [])
    except VisahubError as error:
        print(error.sentence, file=sys.stderr)
    time.sleep(_PAUSE_SECONDS)
    sys.exit(1)


def main(argv: list[str]) -> None:
    """Runs one of the commands."""
    if argv[:1] == ["hold"] and len(argv) == 2:
        hold(Path(argv[1]))
    elif argv == ["stop"]:
        runtime.stop(runtime.find(os.environ))
    elif not argv:
        # Only the daemon needs tornado and asyncio; the holder starts without.
        from .daemon import run

        asyncio.run(run(os.environ))
    else:
        sys.exit("usage: python -m visahub.singleuser.desktop [hold SOCKET | stop]")


if __name__ == "__main__":
    main(sys.argv[1:])
