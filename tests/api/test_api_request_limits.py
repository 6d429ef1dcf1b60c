"""How many requests of one app are worked on at a time: more while it is alone, and every request gets its turn."""

from __future__ import annotations

import asyncio

import pytest

from api.runtime.request_limits import _ALONE, MAX_ACTIVE, MAX_ACTIVE_ALONE, RequestLimits, RequestSlot


async def enter(limits: RequestLimits, app: str) -> RequestSlot:
    slot = RequestSlot(limits)
    assert slot.start()
    assert await slot.enter(app, lambda: False)
    return slot


async def entered(limits: RequestLimits, app: str, count: int) -> tuple[list[RequestSlot], list[asyncio.Task]]:
    """Return the slots that had their turn at once, and the tasks of those that wait for it."""
    tasks = [asyncio.ensure_future(enter(limits, app)) for _ in range(count)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return [task.result() for task in tasks if task.done()], [task for task in tasks if not task.done()]


async def leave_one_by_one(active: list[RequestSlot], waiting: list[asyncio.Task]) -> int:
    """Let all leave; return how many were active at most after the first had left."""
    most = 0
    while active:
        active.pop().leave()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        active += [task.result() for task in waiting if task.done()]
        waiting[:] = [task for task in waiting if not task.done()]
        most = max(most, len(active))
    return most


@pytest.fixture
def limits(settings):
    return RequestLimits(settings)


async def test_an_app_that_is_alone_has_more_requests_worked_on(limits):
    active, waiting = await entered(limits, "a", MAX_ACTIVE_ALONE + 5)
    assert len(active) == MAX_ACTIVE_ALONE
    await leave_one_by_one(active, waiting)
    assert not waiting
    assert limits.usage("a").active == 0


async def test_an_app_beside_another_has_fewer_until_it_is_alone_again(limits):
    for app in ("a", "b"):
        (await enter(limits, app)).leave()
    active, waiting = await entered(limits, "a", MAX_ACTIVE_ALONE)
    assert len(active) == MAX_ACTIVE
    await leave_one_by_one(active, waiting)
    for _ in range(_ALONE):
        (await enter(limits, "a")).leave()
    active, waiting = await entered(limits, "a", MAX_ACTIVE_ALONE)
    assert len(active) == MAX_ACTIVE_ALONE
    await leave_one_by_one(active, waiting)


async def test_when_another_app_comes_the_first_works_off_what_is_above_its_share(limits):
    active, waiting = await entered(limits, "a", MAX_ACTIVE_ALONE)
    (await enter(limits, "b")).leave()
    more, waiting = await entered(limits, "a", 3 * MAX_ACTIVE)
    assert more == []
    while len(active) > MAX_ACTIVE:
        active.pop().leave()
        await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    assert await leave_one_by_one(active, waiting) == MAX_ACTIVE
    assert not waiting
    assert limits.usage("a").active == 0
