"""Waiting that survives an outage of the database and a cancellation."""

from __future__ import annotations

import asyncio

import pytest

from visahub.flows.patience import patiently, undisturbed
from visahub.model.errors import Refused, Unavailable


class Answers:
    def __init__(self, *answers: Exception | str) -> None:
        self.answers = list(answers)

    def __call__(self) -> str:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


async def test_it_asks_again_when_nobody_answers() -> None:
    assert await patiently(Answers(Unavailable("a"), Unavailable("b"), "yes")) == "yes"


async def test_it_gives_up_in_the_end() -> None:
    with pytest.raises(Unavailable, match="c"):
        await patiently(Answers(Unavailable("a"), Unavailable("b"), Unavailable("c")))


async def test_a_refusal_is_an_answer() -> None:
    with pytest.raises(Refused):
        await patiently(Answers(Refused("no", rule="r"), "yes"))


async def test_work_is_finished_before_a_cancellation_goes_on() -> None:
    done = []

    async def work() -> None:
        await asyncio.sleep(0.05)
        done.append(True)

    task = asyncio.create_task(undisturbed(work()))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == [True]


@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_a_failure_of_the_work_is_not_lost(is_cancelled: bool) -> None:
    async def work() -> None:
        await asyncio.sleep(0.05)
        raise ValueError("broken")

    task = asyncio.create_task(undisturbed(work()))
    await asyncio.sleep(0.01)
    if is_cancelled:
        task.cancel()
    with pytest.raises(asyncio.CancelledError if is_cancelled else ValueError) as caught:
        await task
    if is_cancelled:
        assert isinstance(caught.value.__context__, ValueError)
