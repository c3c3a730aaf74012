"""Stands for JupyterLab in tests: answers on the unix socket of JUPYTERHUB_SERVICE_URL at once, or misbehaves.

`python -S tiny_server.py KIND`: plain; failing (ends before it answers); mute (never answers); daemons (leaves
double-forked sleepers, one of them without our environment); deaf (ignores SIGTERM);
greedy (writes a long log).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import time
from urllib.parse import unquote, urlsplit


def main() -> None:
    kind = sys.argv[1]
    report = {
        "environ": dict(os.environ),
        "cwd": os.getcwd(),
        "ids": [*os.getresuid(), *os.getresgid()],
        "groups": os.getgroups(),
        "umask": os.umask(0o077),
        "files": sorted(os.listdir("/proc/self/fd")),
        "ignored": [n for n in range(1, 32) if n not in (9, 19) and signal.getsignal(n) is signal.SIG_IGN],
        "session": os.getsid(0) == os.getpid(),
    }
    with open(os.path.join(os.environ["VISAHUB_RUNTIME"], "report.json"), "w") as file:
        json.dump(report, file)
    print("tiny server: hello", flush=True)
    if kind == "failing":
        print("tiny server: no space left on device", flush=True)
        sys.exit(3)
    if kind == "mute":
        time.sleep(1000)
    if kind == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if kind == "greedy":
        for number in range(60_000):
            print(f"line {number} of a server that talks too much", flush=False)
        print("this is the last line", flush=True)
    if kind == "daemons":
        _daemon(dict(os.environ))
        _daemon({})
    _serve(unquote(urlsplit(os.environ["JUPYTERHUB_SERVICE_URL"]).netloc))


def _daemon(environ: dict[str, str]) -> None:
    # The pipe closes when the daemon has become what tests look for.
    source, sink = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.execve("/bin/sh", ["visahub-test-daemon", "-c", "trap '' TERM; while :; do sleep 1000; done"], environ)
        os._exit(0)
    os.close(sink)
    os.wait()
    os.read(source, 1)
    os.close(source)


def _serve(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        os.chmod(path, 0o600)
        server.listen()
        while True:
            client, _ = server.accept()
            with client, contextlib.suppress(OSError):
                client.recv(65536)
                client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")


main()
