"""What a local instance is told: its command, its environment and its list of experiments. Used by `local.py`."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..model.errors import Refused
from ..model.experiment import Experiment
from ..model.launch import Launch
from .local_accounts import Person
from .local_runs import Run

_MODULE = "visahub.singleuser.launcher"


def command(launch: Launch, backend: str, commands: Mapping[str, list[str]]) -> list[str]:
    """Gives the command that the environment's image stands for; raises Refused when it stands for none."""
    image = launch.environment.images.get(backend, "")
    if image in commands:
        return list(commands[image])
    if image in {"", "this"} or os.path.isabs(image):
        # -P: a file of the user named like one of our modules must not keep JupyterLab from starting.
        return [image if os.path.isabs(image) else sys.executable, "-P", "-m", _MODULE]
    raise Refused(
        f"{launch.environment.name} cannot run on this machine: LocalBackend.commands has no entry {image!r}. "
        "Choose another environment, and tell support.",
        rule="unknown-image",
        status=409,
    )


def is_open_to_all(program: str) -> bool:
    """Tells whether every account may run a program, as far as plain permissions say."""
    path = Path(os.path.realpath(program))
    return all(part.stat().st_mode & 0o001 for part in (path, *path.parents))


def prefix(launch: Launch) -> str:
    """Gives the path below which the instance's server answers."""
    return launch.environ.get("JUPYTERHUB_SERVICE_PREFIX", "/")


def environ(launch: Launch, person: Person, run: Run, program: str) -> dict[str, str]:
    """Gives the whole environment of the instance: nothing of the Hub's own gets into it."""
    return {
        **launch.environ,
        "HOME": person.home,
        "USER": person.username,
        "LOGNAME": person.username,
        "SHELL": person.shell,
        "PATH": f"{os.path.dirname(program)}:/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "XDG_RUNTIME_DIR": str(run.runtime),
        "JUPYTERHUB_SERVICE_URL": run.address + prefix(launch),
        "VISAHUB_INSTANCE": launch.instance_id,
        "VISAHUB_ATTEMPT": launch.attempt,
        "VISAHUB_DEPLOYMENT": launch.deployment,
        "VISAHUB_NAME": launch.name,
        "VISAHUB_RESOLUTION": launch.resolution,
        "VISAHUB_KEYBOARD": launch.keyboard,
        "VISAHUB_RUNTIME": str(run.runtime),
        "VISAHUB_EXPERIMENTS": str(run.list),
    }


def experiment_row(experiment: Experiment) -> dict[str, Any]:
    """Gives what the instance is told of one experiment; `local_home.py` adds `link` and `note`."""
    return {
        "id": experiment.id,
        "proposal": experiment.proposal,
        "title": experiment.title,
        "instrument": experiment.instrument,
        "start": experiment.start.isoformat() if experiment.start else None,
        "end": experiment.end.isoformat() if experiment.end else None,
        "team": [
            {"username": member.username, "name": member.name, "role": member.role.value} for member in experiment.team
        ],
        "doi": experiment.doi,
        "path": experiment.path,
    }
