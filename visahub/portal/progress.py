"""How a start goes on: its steps with the time each took and usually takes, as a page and as a stream."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..model.errors import Refused, Unavailable
from ..model.instance import Event, Instance, Phase, Want
from ..store.database import ask
from .base import Handler
from .cards import Card, card
from .events import Stream
from .words import could_not, duration

# How long the page waits for the Hub's proxy after the instance itself has answered.
PROXY_SECONDS = 10.0


@dataclass(frozen=True)
class Line:
    """One step of a start: done, now, todo or bad; `since` is for the ticking clock of the current one."""

    state: str
    text: str
    time: str
    since: float | None = None
    usual: str = ""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What the progress page shows."""

    phase: str  # "starting" | "ready" | "error" | "ended"
    lines: list[Line]
    percent: int
    usual: str
    log: list[Event]
    problem: str = ""


def progress(instance: Instance, events: Sequence[Event], usual: Mapping[str, float], now: datetime) -> Progress:
    """Tells how far the current attempt is: the steps seen, then those that usually follow."""
    mine = [event for event in events if event.attempt == instance.attempt]
    steps = [event for event in mine if event.kind == "step"]
    phase = _phase(instance)
    lines = [_line(step, step is steps[-1], phase, usual, now) for step in steps]
    seen = {step.key for step in steps}
    if phase == "starting":
        lines += [
            Line("todo", _NAMES.get(key, key.replace("-", " ").capitalize()), f"usually {duration(seconds)}")
            for key, seconds in usual.items()
            if key not in seen
        ]
    percent = 100 if phase == "ready" else (steps[-1].percent or 0 if steps else 0)
    total = sum(usual.values())
    return Progress(
        phase=phase,
        lines=lines,
        percent=percent,
        usual=f"Usually {duration(total)}" if total else "",
        log=[event for event in mine if event.kind == "note"],
        problem=instance.sentence if phase == "error" else "",
    )


# Steps that have not come yet are known by their key only.
_NAMES = {
    "account": "Account on the machine",
    "files": "Home and data of the experiments",
    "process": "JupyterLab starts",
    "answers": "JupyterLab answers",
}


def _phase(instance: Instance) -> str:
    if instance.want is Want.ON and instance.phase is Phase.STARTING:
        return "starting"
    if instance.want is Want.ON and instance.phase is Phase.READY:
        return "ready"
    return "error" if instance.phase is Phase.ERROR and instance.want is not Want.GONE else "ended"


def _line(step: Event, is_last: bool, phase: str, usual: Mapping[str, float], now: datetime) -> Line:
    if is_last and phase == "starting" and step.seconds is None:
        passed = max(0.0, (now - step.at).total_seconds())
        known = f"usually {duration(usual[step.key])}" if step.key in usual else ""
        return Line("now", step.text, duration(passed), since=round(passed, 1), usual=known)
    seconds = duration(step.seconds) if step.seconds is not None else ""
    return Line("bad" if is_last and phase in {"error", "ended"} else "done", step.text, seconds)


class ProgressPage(Handler):
    """GET instances/{id}/progress: the steps so far; the stream makes it live, a refresh does without a script."""

    async def get(self, instance_id: str) -> None:
        instance = await self.own_instance(instance_id)
        shown = await card(self.portal, self.me, instance)
        usual = await ask(self.portal.store.instances.usual_seconds, instance.backend)
        seen = progress(instance, shown.events, usual, self.portal.now())
        self.render_page("progress.html", card=shown, seen=seen, problem_word=could_not(instance))


class ProgressStream(Stream):
    """GET instances/{id}/events: the progress as HTML whenever it changes; at last "ready" with the address, or "end".

    A second viewer and a reloaded page get everything: the events are read from the beginning each time.
    """

    async def open(self, *path: str) -> None:
        self.instance_id = path[0]
        self.sent: object = None
        self.is_over = False
        await self.own_instance(self.instance_id)

    async def news(self) -> list[tuple[str, Mapping[str, Any]]]:
        try:
            instance = await self.own_instance(self.instance_id)
        except Refused:
            self.is_over = True
            return [("end", {"html": ""})]
        shown = await card(self.portal, self.me, instance)
        state = (
            instance.phase,
            instance.want,
            instance.sentence,
            [(event.id, event.seconds) for event in shown.events],
        )
        if state == self.sent:
            return []
        self.sent = state
        return await self._told(instance, shown)

    async def _told(self, instance: Instance, shown: Card) -> list[tuple[str, Mapping[str, Any]]]:
        usual = await ask(self.portal.store.instances.usual_seconds, instance.backend)
        seen = progress(instance, shown.events, usual, self.portal.now())
        html = self.text_of("_progress.html", card=shown, seen=seen, problem_word=could_not(instance))
        said = f"{instance.name}: {seen.lines[-1].text if seen.lines and seen.phase == 'starting' else seen.phase}"
        news: list[tuple[str, Mapping[str, Any]]] = [("progress", {"html": html, "words": said})]
        if seen.phase == "starting":
            return news
        self.is_over = True
        if seen.phase == "ready":
            await self._until_reachable(instance)
            news.append(("ready", {"address": shown.lab}))
        else:
            news.append(("end", {}))
        return news

    async def _until_reachable(self, instance: Instance) -> None:
        """The instance answers; now waits until the Hub leads to it, so that the browser does not meet a detour."""
        for _ in range(int(PROXY_SECONDS * 10)):
            try:
                if await self.portal.hub.is_ready(self.token, instance.owner, instance.server_name):
                    return
            except (Refused, Unavailable):
                # The address works without this: the Hub has a page of its own for it.
                return
            await asyncio.sleep(0.1)

    def is_finished(self) -> bool:
        return self.is_over
