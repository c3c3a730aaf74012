"""What runs now: whether Hub, portal and proxy answer, know each other, and know all that runs in their name."""

from __future__ import annotations

import asyncio
import os

from .. import addresses, proxy
from ..backends.base import Backend
from ..model.errors import VisahubError
from .findings import CORRECT_FIRST, Answer, Check, Grade, Site, asked

_OFF = "Nothing of this visahub runs now."


def _running_hub(site: Site) -> Answer:
    if _hub_answers(site):
        return Grade.OK, "The Hub answers."
    if _portal_answer(site)[0] or _has_proxy(site):
        return Grade.PROBLEM, (
            f"The portal or the proxy runs, but the Hub does not answer at {addresses.hub_url(site.config)}. Instances "
            "go on, but nobody can log in or start one. See why: journalctl -u visahub-hub; then: systemctl restart "
            "visahub-hub"
        )
    return Grade.SKIPPED, _OFF


def _running_portal(site: Site) -> Answer:
    status, said = _portal_answer(site)
    if status == 200:
        return Grade.OK, "The portal answers."
    if status:
        sentence = said.get("message", "") if isinstance(said, dict) else ""
        return Grade.PROBLEM, f"The portal is not well (status {status}). {sentence or 'See its log.'}"
    if not _hub_answers(site):
        return Grade.SKIPPED, _OFF
    where = f"The Hub runs, but its portal does not answer at {addresses.portal_url(site.config)}: no pages."
    if os.environ.get("VISAHUB_PORTAL_TOKEN"):
        return Grade.PROBLEM, f"{where} See why: journalctl -u visahub-portal; then: systemctl restart visahub-portal"
    return Grade.PROBLEM, (
        f"{where} The Hub starts it again within half a minute; if it stays away, the Hub's log says why: journalctl "
        "-u visahub-hub"
    )


def _running_proxy(site: Site) -> Answer:
    if "proxy_class" in site.config.JupyterHub or not site.is_proxy_elsewhere:
        return Grade.SKIPPED, "The proxy is not a unit of its own."
    try:
        status, _ = asked(f"{addresses.proxy_api_url(site.config)}/api/routes", proxy.token(site.config))
    except proxy.NoProxy:
        return Grade.SKIPPED, "The proxy needs its token first."
    if status == 200:
        return Grade.OK, "The proxy answers and knows the Hub's token."
    if status == 403:
        return Grade.PROBLEM, (
            f"The proxy has another token than this one ({proxy.TOKEN}), so the Hub cannot tell it its routes. Restart "
            "both, which read it from one file: systemctl restart visahub-proxy visahub-hub"
        )
    if not _hub_answers(site):
        return Grade.SKIPPED, _OFF
    return Grade.PROBLEM, (
        f"The Hub runs, but the proxy does not answer at {addresses.proxy_api_url(site.config)}, so nobody reaches "
        "anything. See why: journalctl -u visahub-proxy; then: systemctl restart visahub-proxy"
    )


def _tokens_of_hub_and_portal(site: Site) -> Answer:
    token = os.environ.get("VISAHUB_PORTAL_TOKEN", "")
    if not token or not _hub_answers(site):
        return Grade.SKIPPED, "Needs a running Hub, and VISAHUB_PORTAL_TOKEN or portal.env beside the configuration."
    again = "Both read it from one file: systemctl restart visahub-hub visahub-portal"
    status, said = asked(f"{addresses.hub_api_url(site.config)}/user", token)
    if status == 403 or (status == 200 and said.get("name") != "visahub"):
        return Grade.PROBLEM, f"The Hub does not know VISAHUB_PORTAL_TOKEN: it was started with another one. {again}"
    status, said = _portal_answer(site)
    if status == 200 and said.get("round") == "refused":
        return Grade.PROBLEM, (
            "The Hub refuses the portal's token, so nothing is looked after and nobody can log in: the portal was "
            f"started with another VISAHUB_PORTAL_TOKEN. {again}"
        )
    return Grade.OK, "The Hub knows the portal's token."


def _strays(site: Site) -> Answer:
    if site.parts is None:
        return Grade.SKIPPED, CORRECT_FIRST
    try:
        seen = {id: set(asyncio.run(_seen(backend))) for id, backend in site.parts.backends.items()}
        known = site.parts.store.instances.known_attempts({attempt for found in seen.values() for attempt in found})
    except VisahubError as error:
        return Grade.SKIPPED, f"Cannot be told now: {error.sentence}"
    strays = [f"{attempt} ({id})" for id, found in sorted(seen.items()) for attempt in sorted(found - known)]
    if strays:
        return Grade.WARNING, (
            f"{len(strays)} running instance{'s' if len(strays) > 1 else ''} of this deployment that no row of the "
            f"database knows: {', '.join(strays[:5])}. Nothing ends them by itself: the database may be an old copy. "
            "`visahub strays list` tells more; read docs/backup.md before you end any."
        )
    return Grade.OK, "The database knows all that runs."


async def _seen(backend: Backend) -> list[str]:
    return list(await backend.look())


def _hub_answers(site: Site) -> bool:
    return asked(f"{addresses.hub_url(site.config)}{addresses.base_url(site.config)}hub/health")[0] == 200


def _portal_answer(site: Site) -> tuple[int, dict[str, str]]:
    url = f"{addresses.portal_url(site.config)}{addresses.base_url(site.config)}services/visahub/health"
    status, said = asked(url)
    return status, said if isinstance(said, dict) else {}


def _has_proxy(site: Site) -> bool:
    if not site.is_proxy_elsewhere:
        return False
    return asked(f"{addresses.proxy_api_url(site.config)}/api/routes")[0] in {200, 403}


CHECKS: tuple[Check, ...] = (_running_hub, _running_portal, _running_proxy, _tokens_of_hub_and_portal, _strays)
