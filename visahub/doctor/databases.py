"""The databases: reachable, of the right age, apart from each other, with room, and a clock that fits them."""

from __future__ import annotations

import os
import shutil
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

from ..model.errors import VisahubError
from ..model.lease import LEASE_SECONDS
from .findings import CORRECT_FIRST, Answer, Check, Grade, Site

_OURS = ("Visahub", "database_url", "sqlite:///visahub.sqlite")
_HUBS = ("JupyterHub", "db_url", "sqlite:///jupyterhub.sqlite")
_ROOM_BYTES = 500 * 2**20
_CLOCK_SLACK = timedelta(minutes=10)


def _database(site: Site) -> Answer:
    if site.parts is None:
        return Grade.SKIPPED, CORRECT_FIRST
    try:
        site.parts.store.check()
    except VisahubError as error:
        if site.file_of(*_OURS) is None and "does not answer" in error.sentence:
            return Grade.PROBLEM, (
                "The database of visahub does not answer. See whether its server runs, whether Visahub.database_url "
                "names it, and whether its password is in the file that PGPASSFILE names (/etc/visahub/pgpass)."
            )
        return Grade.PROBLEM, error.sentence
    return Grade.OK, "It answers, and its tables fit."


def _database_of_its_own(site: Site) -> Answer:
    if _place_of(site.setting(*_OURS)) == _place_of(site.setting(*_HUBS)):
        return Grade.PROBLEM, (
            "visahub and JupyterHub share one database; who locks it stops the whole Hub. "
            "Give Visahub.database_url another file or database."
        )
    return Grade.OK, "visahub's database is not JupyterHub's."


def _place_of(url: str) -> str:
    """Gives what tells two databases apart: the file, or the address without driver, account and options."""
    if "://" not in url or url.startswith("sqlite:///"):
        # JupyterHub takes a plain path for a file, too.
        return os.path.realpath(url.removeprefix("sqlite:///").split("?")[0])
    parts = urlsplit(url)
    return f"{parts.scheme.split('+')[0]}://{parts.hostname}:{parts.port or 5432}{parts.path}"


def _room_on_disk(site: Site) -> Answer:
    file = site.file_of(*_OURS)
    folder = file.absolute().parent if file else Path.cwd()
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        return Grade.PROBLEM, f"{folder} cannot be written to. Make it, or change Visahub.database_url."
    free = shutil.disk_usage(folder).free
    if free < _ROOM_BYTES:
        return Grade.WARNING, f"Only {free // 2**20} MB are free in {folder}. Make room before the database stops."
    return Grade.OK, f"{free // 2**30} GB are free."


def _clock(site: Site) -> Answer:
    if site.parts is None:
        return Grade.SKIPPED, CORRECT_FIRST
    try:
        newest = max((row.changed for row in site.parts.store.instances.live()), default=None)
    except VisahubError:
        return Grade.SKIPPED, "The database has to answer first."
    now = datetime.now(UTC)
    if newest is not None and newest > now + _CLOCK_SLACK:
        return Grade.PROBLEM, (
            f"The clock of this machine is wrong, or was: it shows {now:%d %B %Y %H:%M} UTC, and the database knows of "
            f"something that happened at {newest:%d %B %Y %H:%M}. Set the clock (timedatectl set-ntp true)."
        )
    return Grade.OK, "The clock is not behind what the database knows."


def _one_hub(site: Site) -> Answer:
    if site.parts is None:
        return Grade.SKIPPED, CORRECT_FIRST
    try:
        lease = site.parts.store.leases.held()
    except VisahubError:
        return Grade.SKIPPED, "The database has to answer first."
    if lease is None or lease.holder.is_free:
        return Grade.OK, "No Hub works on the database now."
    holder, ours = lease.holder, site.parts.settings.deployment
    if holder.deployment != ours:
        return Grade.PROBLEM, (
            f"The database belongs to the deployment {holder.deployment!r}, and this is {ours!r}. Give this one a "
            f"database of its own (Visahub.database_url), or set Visahub.deployment back to {holder.deployment!r}."
        )
    if holder.host != socket.gethostname() and datetime.now(UTC) - lease.renewed < timedelta(seconds=LEASE_SECONDS):
        return Grade.PROBLEM, (
            f"The Hub on {holder.host} works on this database, so that one on this machine would not start. Stop it "
            "there first (systemctl stop visahub-hub), or give this one a database of its own (Visahub.database_url)."
        )
    return Grade.OK, "One Hub works on the database."


CHECKS: tuple[Check, ...] = (_database, _database_of_its_own, _one_hub, _room_on_disk, _clock)
