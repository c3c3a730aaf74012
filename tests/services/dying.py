"""Lets a process of the product die at a named step: `arm(state)` in the configuration file of a test's Hub.

The file `die` in the Hub's folder names the step and the process to kill: {"step": "id saved", "pid": 4711}. Whoever
comes to the step sends that process SIGKILL, itself as a rule. The file goes first, so that each step kills once. The
product itself holds nothing of this: its functions are wrapped in the processes that read the test's configuration.
"""

from __future__ import annotations

import functools
import inspect
import json
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visahub.backends.local_place import LocalPlace
from visahub.model.instance import Phase, Want
from visahub.portal.hubapi import HubApi
from visahub.store.instances import Instances


@dataclass(frozen=True)
class Step:
    """Just before or just after a call of a function, if its arguments are these."""

    name: str
    owner: type
    function: str
    is_before: bool
    argument: object = None

    def is_met(self, args: tuple[Any, ...], *, is_before: bool) -> bool:
        return self.is_before is is_before and (self.argument is None or self.argument in args)


# In the order of an instance's life. The row is written by `admit`, its steps by `step`, its phases by `move`.
STEPS = (
    Step("start not asked", HubApi, "start", True),
    Step("before the row", Instances, "admit", True),
    Step("row and attempt saved", Instances, "admit", False),
    Step("created, id not saved", LocalPlace, "prepared", False),
    Step("id saved", LocalPlace, "spawned", True),
    Step("process made", LocalPlace, "spawned", False),
    Step("ready not acknowledged", Instances, "move", True, Phase.READY),
    Step("ready", Instances, "move", False, Phase.READY),
    Step("start answered", HubApi, "start", False),
    Step("stop wished", Instances, "wish", False, Want.OFF),
    Step("stopping", Instances, "move", False, Phase.STOPPING),
    Step("stopped, not saved", Instances, "move", True, Phase.STOPPED),
    Step("delete wished", Instances, "wish", False, Want.GONE),
    Step("deleting", Instances, "move", False, Phase.DELETING),
    Step("deleted, not saved", Instances, "move", True, Phase.GONE),
)


def arm(state: Path) -> None:
    """Wraps the functions of all steps; without the file nothing changes."""
    for owner, function in dict.fromkeys((step.owner, step.function) for step in STEPS):
        steps = [step for step in STEPS if (step.owner, step.function) == (owner, function)]
        meet = functools.partial(_meet, steps, state / "die")
        setattr(owner, function, _wrapped(getattr(owner, function), meet))


def _wrapped(stock: Callable[..., Any], meet: Callable[..., None]) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(stock):

        @functools.wraps(stock)
        async def waiting(*args: Any, **kwargs: Any) -> Any:
            meet(args, is_before=True)
            result = await stock(*args, **kwargs)
            meet(args, is_before=False)
            return result

        return waiting

    @functools.wraps(stock)
    def plain(*args: Any, **kwargs: Any) -> Any:
        meet(args, is_before=True)
        result = stock(*args, **kwargs)
        meet(args, is_before=False)
        return result

    return plain


def _meet(steps: list[Step], order: Path, args: tuple[Any, ...], *, is_before: bool) -> None:
    try:
        read = json.loads(order.read_text())
    except FileNotFoundError:
        return
    if any(step.name == read["step"] and step.is_met(args, is_before=is_before) for step in steps):
        order.unlink()
        os.kill(read["pid"], signal.SIGKILL)
