"""Large bodies share a budget: what does not fit waits, app by app, and nothing of it is lost."""

from __future__ import annotations

import asyncio

import pytest
from waiting import soon

from api.runtime import body_budget
from api.runtime.body_budget import BodyBudget, BudgetSpent


async def waiting(budget, app, size):
    task = asyncio.create_task(budget.take(app, size))
    await asyncio.sleep(0)
    return task


async def test_what_fits_is_taken_and_the_rest_waits_in_turn_by_app():
    budget = BodyBudget(10)
    first = await budget.take("a", 6)
    greedy = [await waiting(budget, "a", 6) for _ in range(3)]
    other = await waiting(budget, "b", 6)
    first.release()
    first.release()
    (await soon(greedy[0])).release()
    held = await soon(other)
    assert not greedy[1].done()
    held.release()
    for task in greedy[1:]:
        (await soon(task)).release()
    assert (await budget.take("c", 10)) is not None


async def test_a_body_that_is_larger_than_all_takes_all():
    budget = BodyBudget(10)
    (await budget.take("a", 50)).release()
    await budget.take("a", 10)


async def test_a_small_one_does_not_pass_one_that_waits():
    budget = BodyBudget(10)
    first = await budget.take("a", 6)
    large, small = await waiting(budget, "a", 10), await waiting(budget, "b", 1)
    assert not small.done()
    first.release()
    (await soon(large)).release()
    await soon(small)


async def test_who_leaves_or_waits_for_too_long_takes_nothing(monkeypatch):
    budget = BodyBudget(10)
    first = await budget.take("a", 10)
    gone = await waiting(budget, "a", 10)
    gone.cancel()
    monkeypatch.setattr(body_budget, "_MAX_WAIT_S", 0.02)
    with pytest.raises(BudgetSpent):
        await budget.take("b", 10)
    first.release()
    await budget.take("c", 10)


async def test_one_that_is_cancelled_when_its_turn_has_come_gives_its_bytes_to_the_next():
    budget = BodyBudget(10)
    first = await budget.take("a", 10)
    second, third = await waiting(budget, "a", 10), await waiting(budget, "b", 10)
    first.release()
    second.cancel()
    await soon(third)


async def test_one_app_leaves_room_for_a_body_of_another():
    budget = BodyBudget(10, largest=4)
    held = [await budget.take("slow", 4)]
    more = [await waiting(budget, "slow", size) for size in (4, 1)]
    assert not any(task.done() for task in more), "its share is 6, and its bodies come in turn"
    other = await soon(await waiting(budget, "other", 4))
    held.pop().release()
    small, other_small = [await waiting(budget, app, 1) for app in ("slow", "other")]
    other.release()
    for task in (*more, small, other_small):
        await soon(task)


async def test_an_app_that_holds_nothing_may_take_more_than_its_share():
    budget = BodyBudget(10, largest=8)
    first = await budget.take("a", 8)
    second = await waiting(budget, "a", 8)
    assert not second.done()
    first.release()
    (await soon(second)).release()
