"""The start page: which notebook and folder JupyterLab opens first. Called by the launcher and the server extension."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

TEMPLATE = Path(__file__).with_name("start.ipynb")
# What an instance opens first. It tells nothing of the experiments: strangers are led here, too, before their login.
ADDRESS = "visahub/start"
# Larger is not a list of experiments.
_MAX_BYTES = 1_000_000
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


def read_experiments(environ: Mapping[str, str]) -> list[dict[str, Any]]:
    """Reads the instance's experiments (VISAHUB_EXPERIMENTS); an absent or broken list is an empty one."""
    path = environ.get("VISAHUB_EXPERIMENTS", "")
    try:
        with open(path, "rb") as file:
            raw = json.loads(file.read(_MAX_BYTES))
    except (OSError, ValueError):
        return []
    if not isinstance(raw, list):
        return []
    return [row for row in raw if isinstance(row, dict) and isinstance(row.get("proposal"), str)]


def notebook_name(environ: Mapping[str, str]) -> str:
    """Names the start notebook in the home: `start-<first proposal>.ipynb`, since experiment folders are read-only."""
    experiments = read_experiments(environ)
    proposal = _UNSAFE.sub("-", experiments[0]["proposal"])[:80].strip(".-") if experiments else ""
    return f"start-{proposal}.ipynb" if proposal else "start.ipynb"


def page(environ: Mapping[str, str], home: Path) -> str:
    """Gives the page that JupyterLab opens: the start notebook, beside the first experiment in the file browser."""
    if not TEMPLATE.is_file():
        return "/lab"
    url = "/lab/tree/" + quote(notebook_name(environ))
    folder = first_folder(environ, home)
    return url + ("?" + urlencode({"file-browser-path": "/" + folder}) if folder else "")


def first_folder(environ: Mapping[str, str], home: Path) -> str:
    """Gives the first experiment's folder relative to the home, '' when there is none."""
    for experiment in read_experiments(environ)[:1]:
        link = experiment.get("link")
        candidates = [Path(link)] if isinstance(link, str) and link else []
        candidates.append(home / "experiments" / experiment["proposal"])
        for path in candidates:
            path = home / path
            if path.is_relative_to(home) and ".." not in path.parts and path.is_dir():
                return path.relative_to(home).as_posix()
    return ""


def copy_notebook(environ: Mapping[str, str], home: Path) -> Path | None:
    """Puts the start notebook into the home unless something of that name is there; gives its path.

    O_EXCL neither follows a symlink nor overwrites what the user has changed. Gives None when it cannot be
    written (a full or read-only home must not keep the server from starting).
    """
    target = home / notebook_name(environ)
    try:
        handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
    except FileExistsError:
        return target
    except OSError:
        return None
    try:
        with open(handle, "wb") as sink, TEMPLATE.open("rb") as source:
            shutil.copyfileobj(source, sink)
    except OSError:
        # Half a notebook is worse than none.
        target.unlink(missing_ok=True)
        return None
    return target
